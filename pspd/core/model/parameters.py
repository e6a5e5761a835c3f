"""The protocol's parameters, and the two profiles: named sets of parameters."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

SECOND_NS = 1_000_000_000
MILLISECOND_NS = 1_000_000


class Order(StrEnum):
    """The order in which a client requests missing chunks.

    A request starts where the latest broadcast of the file ends (CURSOR), at the first missing chunk (SEQUENTIAL), or
    at a random missing chunk (RANDOM). From the fifth repeat in a row on, each repeat starts where the previous request
    ended; the sequential order then continues from there.
    """

    CURSOR = "cursor"
    SEQUENTIAL = "sequential"
    RANDOM = "random"


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters that the server chooses and sends to each member that joins.

    Attributes:
        profile: the name of the profile.
        frame_chunks: the most chunks in one fetch, one contribution or one delivery.
        window_min_chunks: the smallest window, in chunks.
        window_max_chunks: the largest window, in chunks.
        request_ranges: the most ranges in one request.
        kept_links: whether each member opens a link. Otherwise each transfer has its own TCP connection: the server
            opens it for a delivery, and the holder opens it for a contribution.
        all_holders_answer: whether each broadcast asks every holder of a range. Otherwise a broadcast asks one holder
            for each chunk, and every holder only after several broadcasts without an answer.
        order: the order in which a client requests missing chunks.
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
    def uses_batches(self) -> bool:
        """Whether the server does its work in batches. Batches save work only if a frame can have several chunks."""
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
"""The default: frames of many chunks, kept links, an adaptive window, one holder asked for each range."""

PROFILES = {profile.profile: profile for profile in (CLASSIC, FAST)}
FAST_CACHE_CHUNKS = 64 * 1024
"""The default cache of the fast profile, in chunks: 64 MiB."""


def default_cache_chunks(parameters: Parameters) -> int | None:
    """Return the default size of the cache, in chunks; None if the cache has one chunk for each client (R4).

    The cache has one chunk for each client if a frame has only one chunk, as in the classic profile.
    """
    return FAST_CACHE_CHUNKS if parameters.frame_chunks > 1 else None
