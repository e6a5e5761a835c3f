"""The control API over gRPC: the client, the server, and the translation of messages."""
