"""The control API over gRPC: its client, its server, and the translation of its messages."""
