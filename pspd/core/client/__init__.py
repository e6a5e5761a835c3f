"""The client's state machine: hellos, downloads, and contributions to the server."""
