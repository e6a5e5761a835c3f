"""What both ends of the control API must agree on beside its messages."""

from __future__ import annotations

REASON_KEY = "psp-reason"
"""Trailing metadata under which an error's reason code travels."""
MESSAGE_BYTES_MAX = 64 * 1024 * 1024
"""What either end sends, and a client receives: a manifest has up to 32 MiB of digests, and a status many files."""


def channel_options(received_bytes_max: int = MESSAGE_BYTES_MAX) -> list[tuple[str, int]]:
    """Options of a channel or a server that receives messages of up to so many bytes."""
    return [
        ("grpc.max_receive_message_length", received_bytes_max),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ("grpc.enable_http_proxy", 0),
    ]
