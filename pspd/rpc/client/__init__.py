"""The client end of the control API."""
