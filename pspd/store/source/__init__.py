"""The file that a source seeds."""
