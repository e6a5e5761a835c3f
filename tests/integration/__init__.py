"""Real daemons and the real command on loopback."""
