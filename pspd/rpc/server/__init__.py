"""The server end of the control API."""
