"""What both ends of the control API must agree on beside its messages."""

from __future__ import annotations

REASON_KEY = "psp-reason"
"""Trailing metadata under which an error's reason code travels."""
MESSAGE_BYTES_MAX = 64 * 1024 * 1024
"""The largest manifest is 32 MiB."""
CHANNEL_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.enable_http_proxy", 0),
]
