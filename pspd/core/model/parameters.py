"""The protocol's parameters, and the two profiles: named sets of parameters."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

SECOND_NS = 1_000_000_000
MILLISECOND_NS = 1_000_000


class Order(StrEnum):
    """The order in which a client requests missing chunks."""

    CURSOR = "cursor"
    SEQUENTIAL = "sequential"
    RANDOM = "random"


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters that the server chooses and sends to each client that joins.

    Attributes:
        profile: the name of the profile.
        frame_chunks: the most chunks in one range of a broadcast, contribution or delivery.
        window_min_chunks: the smallest window. A frame takes at most half of a window, so that the next frame is
            fetched while one is in flight.
        window_max_chunks: the largest window.
        request_ranges: the most ranges in one request.
        kept_links: whether the client opens one TCP link and keeps it. Otherwise each transfer has its own TCP
            connection, opened by the server for a delivery and by the holder for a contribution.
        all_holders_answer: whether every holder answers a broadcast. Otherwise a broadcast names one holder, and asks
            all of them only after several failures.
        order: the order of a client's requests.
    """

    profile: str
    frame_chunks: int
    window_min_chunks: int
    window_max_chunks: int
    request_ranges: int
    kept_links: bool
    all_holders_answer: bool
    order: Order

    @property
    def gathers(self) -> bool:
        """Whether a frame can have several chunks, so that batches save work."""
        return self.frame_chunks > 1


CLASSIC = Parameters(
    profile="classic",
    frame_chunks=1,
    window_min_chunks=1,
    window_max_chunks=1,
    request_ranges=1,
    kept_links=False,
    all_holders_answer=True,
    order=Order.SEQUENTIAL,
)
"""The protocol in its simplest form: one chunk at a time, one connection per transfer, every holder answers."""

FAST = Parameters(
    profile="fast",
    frame_chunks=8 * 1024,
    window_min_chunks=4 * 1024,
    window_max_chunks=32 * 1024,
    request_ranges=128,
    kept_links=True,
    all_holders_answer=False,
    order=Order.CURSOR,
)
"""The default: ranges of chunks, kept links, an adaptive window, one holder asked at a time."""

PROFILES = {profile.profile: profile for profile in (CLASSIC, FAST)}
FAST_CACHE_CHUNKS = 64 * 1024
"""The default cache of the fast profile: 64 MiB. That of the classic profile is 1 KiB per client."""


def default_cache_chunks(parameters: Parameters) -> int | None:
    """Return the default cache of a profile: a fixed size, or None for one chunk per client (R4)."""
    return None if parameters.profile == CLASSIC.profile else FAST_CACHE_CHUNKS
