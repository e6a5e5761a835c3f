"""Effects of the state machines: commands for the shell to carry out, and events to log."""
