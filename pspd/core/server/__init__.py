"""The server's state machine: forwards chunks between clients and stores no file."""
