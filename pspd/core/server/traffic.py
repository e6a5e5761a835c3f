"""Counters of the datagrams and bytes of one file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Traffic:
    """Counters of the datagrams and bytes of one file. The control API explains each of them."""

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
        """Count a request datagram."""
        self.request_datagrams += 1

    def count_broadcast(self) -> None:
        """Count a broadcast datagram."""
        self.broadcast_datagrams += 1

    def count_retransmit(self) -> None:
        """Count a request or broadcast that was sent again."""
        self.retransmit_count += 1

    def count_contribution(self, byte_count: int) -> None:
        """Count a contribution that passed verification."""
        self.contributed_bytes += byte_count

    def count_duplicate(self, byte_count: int) -> None:
        """Count a duplicate contribution."""
        self.duplicate_bytes += byte_count

    def count_corrupt(self, byte_count: int) -> None:
        """Count bytes with a wrong digest."""
        self.corrupt_bytes += byte_count

    def count_delivery(self, byte_count: int) -> None:
        """Count a delivery that was sent."""
        self.delivered_bytes += byte_count

    def note_seeded(self) -> None:
        """Save the byte counters at the end of the seeding."""
        self.seeding_contributed_bytes = self.contributed_bytes
        self.seeding_delivered_bytes = self.delivered_bytes
