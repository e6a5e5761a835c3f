"""The traffic of one file: counts datagrams and bytes for the control API."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Traffic:
    """Counters of the datagrams and bytes of one file. The message ``Traffic`` of the control API explains each one."""

    request_datagrams: int = 0
    broadcast_datagrams: int = 0
    contributed_bytes: int = 0
    delivered_bytes: int = 0
    duplicate_bytes: int = 0
    corrupt_bytes: int = 0
    retransmit_count: int = 0
    seeding_contributed_bytes: int = 0
    seeding_delivered_bytes: int = 0

    def count_request(self) -> None:
        """Count a request datagram that arrived."""
        self.request_datagrams += 1

    def count_broadcast(self) -> None:
        """Count a broadcast datagram that was sent."""
        self.broadcast_datagrams += 1

    def count_retransmit(self) -> None:
        """Count a request that a client repeated, or a fetch that is broadcast again."""
        self.retransmit_count += 1

    def count_contribution(self, byte_count: int) -> None:
        """Count the bytes of a contribution that is accepted and cached."""
        self.contributed_bytes += byte_count

    def count_duplicate(self, byte_count: int) -> None:
        """Count the bytes of a contribution that was dropped as a duplicate or as unsolicited."""
        self.duplicate_bytes += byte_count

    def count_corrupt(self, byte_count: int) -> None:
        """Count the bytes of a contribution in which a unit has a wrong digest, or of such a unit in the cache."""
        self.corrupt_bytes += byte_count

    def count_delivery(self, byte_count: int) -> None:
        """Count the bytes of a delivery that was sent."""
        self.delivered_bytes += byte_count

    def note_seeded(self) -> None:
        """Save the counters of contributed and delivered bytes at the end of the seeding."""
        self.seeding_contributed_bytes = self.contributed_bytes
        self.seeding_delivered_bytes = self.delivered_bytes
