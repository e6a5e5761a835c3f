"""A client's files on disk, and their in-memory twin."""
