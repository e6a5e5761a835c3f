"""The control API, over a real server on loopback."""
