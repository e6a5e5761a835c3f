"""The daemons of a PSP network: a file for every machine of a group, through a server that keeps nothing."""

__version__ = "0.1.0"
