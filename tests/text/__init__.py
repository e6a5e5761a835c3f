"""How addresses are written and parsed."""
