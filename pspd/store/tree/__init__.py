"""Folders as archives: packing, unpacking, walking."""
