"""The server's cache of chunks: its memory, the order of eviction, and the pins."""
