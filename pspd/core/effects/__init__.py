"""Effects of the state machines: commands for the driver to carry out, and events to log."""
