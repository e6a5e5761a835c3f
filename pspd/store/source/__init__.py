"""The file or folder that a source seeds."""
