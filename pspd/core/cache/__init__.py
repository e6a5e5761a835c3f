"""The server's LRU cache of chunks, in one arena."""
