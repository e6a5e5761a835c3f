"""The membership in a network, which clients and sources have in common."""
