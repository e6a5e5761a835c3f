"""The server's machine: forwards chunks between clients and stores no file."""
