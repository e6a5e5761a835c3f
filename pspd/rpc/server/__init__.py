"""The server side of the control API."""
