"""The daemons of a PSP network: they distribute a file to every machine of a group through a server that keeps nothing."""

__version__ = "0.1.0"
