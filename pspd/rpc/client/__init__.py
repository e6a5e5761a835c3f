"""The client side of the control API."""
