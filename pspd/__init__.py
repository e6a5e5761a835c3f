"""The daemons of a PSP network, which distributes files to a group of machines through a server that stores no file."""

__version__ = "0.1.0"
