"""Fetches, and the members that are asked for them (R7).

The pending table is apart from the cache. A range is fetched once for every client that wants it, and what arrives is
delivered to all of them before it can be evicted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pspd.core.model.ranges import Range, RangeMap, RangeSet
from pspd.core.server.sessions import Member
from pspd.core.server.shared_file import SharedFile
from pspd.core.timing.rtt import RttEstimator
from pspd.core.timing.window import Window


@dataclass(eq=False, repr=False, slots=True)
class Holder:
    """The fetches that name one member, and how it answers. ``Pending`` alone calls the methods that change it.

    Attributes:
        member: the member.
        rtt: round trips from a broadcast to the contribution that answers it.
        window: bounds how many chunks the member is asked for at a time.
        asked: the fetches that name it, oldest assignment first.
        asked_chunks: the number of chunks in those fetches.
        heard_at: when one of its contributions last began or ended, in nanoseconds.
    """

    member: Member
    rtt: RttEstimator
    window: Window
    asked: dict[Fetch, None] = field(default_factory=dict)
    asked_chunks: int = 0
    heard_at: int = 0

    @property
    def has_room(self) -> bool:
        """Whether its window allows another fetch."""
        return self.asked_chunks < self.window.chunks

    def ask(self, fetch: Fetch) -> None:
        """Add a fetch that names the member."""
        self.asked[fetch] = None
        self.asked_chunks += fetch.chunk_count

    def unassign(self, fetch: Fetch) -> None:
        """Remove a fetch that no longer names the member."""
        del self.asked[fetch]
        self.asked_chunks -= fetch.chunk_count

    def answers(self, now: int) -> None:
        """Note that one of its contributions begins."""
        self.heard_at = now

    def answered(self, fetch: Fetch, now: int) -> None:
        """Note that one of its contributions has ended.

        Args:
            fetch: the fetch that it answers.
            now: the time, in nanoseconds.
        """
        self.heard_at = now
        self.window.delivered(fetch.chunk_count, self.rtt.min_ns, now)


@dataclass(eq=False, repr=False, slots=True)
class Fetch:
    """A range to be fetched, from the decision to fetch it until it arrives. ``Pending`` alone changes it.

    Attributes:
        file: the file.
        start, stop: the range.
        order: the number of fetches started so far when it started, itself included.
        tries: how often it was broadcast.
        number: the number of its last broadcast.
        asked_at: when that was sent, in nanoseconds.
        holder: the member that is named to answer; None if every holder is asked.
        sender: the session whose contribution is being received; None if there is none.
        lost_by_reordering: the holder has answered a later broadcast, so that this one was lost (R11).
    """

    file: SharedFile
    start: int
    stop: int
    order: int
    tries: int = 0
    number: int = 0
    asked_at: int = 0
    holder: Holder | None = None
    sender: int | None = None
    lost_by_reordering: bool = False

    @property
    def chunk_count(self) -> int:
        """The number of chunks in the range."""
        return self.stop - self.start

    @property
    def span(self) -> Range:
        """The range."""
        return Range(self.start, self.stop)

    def assign(self, holder: Holder | None) -> None:
        """Name a holder to answer, or every holder, in place of the one before."""
        if self.holder is not None:
            self.holder.unassign(self)
        self.holder = holder
        if holder is not None:
            holder.ask(self)

    def join(self, following: Fetch) -> None:
        """Take over the range of the next fetch, which names the same holder."""
        holder = self.holder
        following.assign(None)
        self.assign(None)
        self.stop, self.order = following.stop, following.order
        self.assign(holder)

    def asked(self, number: int, now: int) -> None:
        """Note a broadcast of it.

        Args:
            number: the broadcast's number.
            now: the time, in nanoseconds.
        """
        self.number, self.asked_at = number, now
        self.tries += 1
        self.lost_by_reordering = False

    def lost(self) -> None:
        """Note that the broadcast or its answer was lost."""
        self.lost_by_reordering = True

    def receive_from(self, session: int | None) -> None:
        """Note the session whose contribution is being received; None if there is none any more."""
        self.sender = session


@dataclass(eq=False, repr=False, slots=True)
class FetchTable:
    """The fetches of one file. ``Pending`` alone calls the methods that change it.

    Attributes:
        ranges: the fetches.
        chunks: their chunks.
        change_count: how often those have changed.
    """

    ranges: RangeMap[Fetch] = field(default_factory=RangeMap)
    chunks: RangeSet = field(default_factory=RangeSet)
    change_count: int = 0

    def add(self, fetch: Fetch) -> None:
        """Add a fetch of chunks that no other fetch covers."""
        self.ranges.insert(fetch)
        self.chunks.add(fetch.start, fetch.stop)
        self.change_count += 1

    def remove(self, fetch: Fetch) -> None:
        """Remove a fetch that has ended."""
        self.ranges.remove(fetch)
        self.chunks.discard(fetch.start, fetch.stop)
        self.change_count += 1

    def check(self) -> None:
        """Assert the invariants."""
        assert RangeSet(fetch.span for fetch in self.ranges) == self.chunks, "the pending table disagrees with itself"
        for fetch in self.ranges:
            assert fetch.holder is None or fetch in fetch.holder.asked, "a holder does not know what it is asked for"
