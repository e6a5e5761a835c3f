"""Generated from proto/ by scripts/gen_proto; not to be edited."""
