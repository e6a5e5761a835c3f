"""Folders as files: the archive of a folder, and how to unpack it."""
