"""Defines the conventions of the control API besides its messages."""

from __future__ import annotations

REASON_KEY = "psp-reason"
"""The key of an error's reason in the trailing metadata."""
MESSAGE_BYTES_MAX = 64 * 1024 * 1024
"""The largest message, in bytes: a manifest has up to 32 MiB of digests, and a status lists many files."""


def channel_options(received_bytes_max: int = MESSAGE_BYTES_MAX) -> list[tuple[str, int]]:
    """Return the gRPC options of a channel or a server that receives messages of up to `received_bytes_max` bytes."""
    return [
        ("grpc.max_receive_message_length", received_bytes_max),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ("grpc.enable_http_proxy", 0),
    ]
