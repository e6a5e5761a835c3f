"""The protocol's parameters, and the two profiles that are nothing but parameters."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

SECOND_NS = 1_000_000_000
MILLISECOND_NS = 1_000_000


class Order(StrEnum):
    """In which order a client names the chunks that it lacks."""

    CURSOR = "cursor"
    SEQUENTIAL = "sequential"
    RANDOM = "random"


@dataclass(frozen=True, slots=True)
class Parameters:
    """What the server decides and every client learns when it joins.

    Attributes:
        profile: name of the profile these started from.
        frame_chunks: the most chunks that one broadcast range, contribution or delivery carries.
        window_min_chunks: the least a window shrinks to. A frame takes half of a window at most: while one is on its
            way the next is fetched.
        window_max_chunks: the most it grows to.
        request_ranges: the most ranges that one request names.
        kept_links: one TCP link per client, dialled by the client and kept; otherwise one TCP
            connection per transfer, the server dialling for deliveries, holders for contributions.
        all_holders_answer: every holder answers a broadcast; otherwise the one it names, and all of
            them only when that failed.
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
        """Whether several chunks can be put together, so that it pays to wait a moment for the next."""
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
"""The seed to the letter: one chunk asked, one TCP connection per transfer, every holder answers."""

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
"""The default: ranges, kept links, an adaptive window, one holder asked at a time."""

PROFILES = {profile.profile: profile for profile in (CLASSIC, FAST)}
FAST_CACHE_CHUNKS = 64 * 1024
"""The fast profile's cache unless the operator names another: 64 MiB. The classic one has n KiB."""


def default_cache_chunks(parameters: Parameters) -> int | None:
    """The cache of a profile when the operator names none: a fixed size, or None for one chunk per client (R4)."""
    return None if parameters.profile == CLASSIC.profile else FAST_CACHE_CHUNKS
