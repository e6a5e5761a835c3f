"""Fetches: ranges that are being fetched, and the members that are asked for them (R7).

The pending table stands beside the cache, never in it. A range is fetched for every client that wants it: what arrives
is delivered to all of them before it can be evicted.
"""

from __future__ import annotations

from pspd.core.model.parameters import Parameters
from pspd.core.model.ranges import Range, RangeMap, RangeSet
from pspd.core.server.member import Member
from pspd.core.server.shared_file import SharedFile
from pspd.core.timing.rtt import RttEstimator
from pspd.core.timing.window import Window


class Holder:
    """What one member is asked for, and how it answers. ``Pending`` alone calls the methods that change it.

    Args:
        member: the member.
        parameters: the profile: the limits of its window.
        rto_min_ns: the shortest timeout of what it is asked for, in nanoseconds.

    Attributes:
        rtt: round trips from a broadcast to the contribution that answers it.
        window: how many chunks may be asked of it at a time.
        asked: the fetches that name it, in the order in which they did.
        asked_chunks: how many chunks those are.
        heard_at: when a contribution of it last began or ended, in nanoseconds.
    """

    __slots__ = ("asked", "asked_chunks", "heard_at", "member", "rtt", "window")

    def __init__(self, member: Member, parameters: Parameters, rto_min_ns: int) -> None:
        self.member = member
        self.rtt = RttEstimator(rto_min_ns)
        self.window = Window(parameters.window_min_chunks, parameters.window_max_chunks)
        self.asked: dict[Fetch, None] = {}
        self.asked_chunks = 0
        self.heard_at = 0

    @property
    def has_room(self) -> bool:
        """Whether its window allows that it is asked for more."""
        return self.asked_chunks < self.window.chunks

    def ask(self, fetch: Fetch) -> None:
        """Note that a fetch names the member."""
        self.asked[fetch] = None
        self.asked_chunks += fetch.chunk_count

    def unassign(self, fetch: Fetch) -> None:
        """Note that a fetch names the member no longer."""
        del self.asked[fetch]
        self.asked_chunks -= fetch.chunk_count

    def note_first_rtt(self, srtt_us: int) -> None:
        """Take the round-trip time that the member measured, in microseconds, until there is a sample."""
        if srtt_us and not self.rtt.srtt_ns:
            self.rtt.sample(srtt_us * 1000)

    def answers(self, now: int) -> None:
        """Note that a contribution of it begins."""
        self.heard_at = now

    def answered(self, fetch: Fetch, now: int) -> None:
        """Note that a contribution of it has come.

        Args:
            fetch: what it answers.
            now: the time, in nanoseconds.
        """
        self.heard_at = now
        self.window.delivered(fetch.chunk_count, self.rtt.min_ns, now)


class Fetch:
    """One range that was or will be broadcast and has not come yet. ``Pending`` alone changes it.

    Attributes:
        file: the file.
        start, stop: the range.
        order: how many fetches had been started when it was, itself included.
        number: that of the last broadcast that asked for it.
        asked_at: when that was sent, in nanoseconds.
        tries: how often it was asked for.
        holder: the member that is named to answer; None if every holder is asked.
        sender: the session whose contribution is being received; None while none is.
        lost_by_reordering: the holder has answered a later broadcast: this one was lost (R11).
    """

    __slots__ = (
        "asked_at",
        "file",
        "holder",
        "lost_by_reordering",
        "number",
        "order",
        "sender",
        "start",
        "stop",
        "tries",
    )

    def __init__(self, file: SharedFile, start: int, stop: int, order: int, tries: int = 0) -> None:
        self.file = file
        self.start = start
        self.stop = stop
        self.order = order
        self.tries = tries
        self.number = 0
        self.asked_at = 0
        self.holder: Holder | None = None
        self.sender: int | None = None
        self.lost_by_reordering = False

    @property
    def chunk_count(self) -> int:
        """How many chunks are being fetched."""
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
        """Take over the range of a neighbour that is asked of the same holder."""
        holder = self.holder
        following.assign(None)
        self.assign(None)
        self.stop, self.order = following.stop, following.order
        self.assign(holder)

    def asked(self, number: int, now: int) -> None:
        """Note that a broadcast asks for it.

        Args:
            number: the broadcast's number.
            now: the time, in nanoseconds.
        """
        self.number, self.asked_at = number, now
        self.tries += 1
        self.lost_by_reordering = False

    def lost(self) -> None:
        """Note that the broadcast, or what answers it, was lost."""
        self.lost_by_reordering = True

    def receive_from(self, session: int | None) -> None:
        """Note the session whose contribution is being received; None for none."""
        self.sender = session


class FetchTable:
    """The fetches of one file. ``Pending`` alone calls the methods that change it.

    Attributes:
        ranges: the fetches.
        chunks: what they fetch.
        change_count: how often that has changed.
    """

    __slots__ = ("change_count", "chunks", "ranges")

    def __init__(self) -> None:
        self.ranges: RangeMap[Fetch] = RangeMap()
        self.chunks = RangeSet()
        self.change_count = 0

    def add(self, fetch: Fetch) -> None:
        """Add a fetch of chunks that are not being fetched."""
        self.ranges.insert(fetch)
        self.chunks.add(fetch.start, fetch.stop)
        self.change_count += 1

    def remove(self, fetch: Fetch) -> None:
        """Remove a fetch that has ended."""
        self.ranges.remove(fetch)
        self.chunks.discard(fetch.start, fetch.stop)
        self.change_count += 1

    def join(self, fetch: Fetch, following: Fetch) -> None:
        """Make one fetch of two neighbours.

        Args:
            fetch: the first, which stays.
            following: the second, which it takes over.
        """
        self.ranges.remove(following)
        fetch.join(following)

    def cut(self, fetch: Fetch, pieces: list[Fetch]) -> None:
        """Put several fetches in the place of one.

        Args:
            fetch: the one.
            pieces: of the same range together.
        """
        self.ranges.remove(fetch)
        for piece in pieces:
            self.ranges.insert(piece)

    def check(self) -> None:
        """Assert the invariants."""
        assert RangeSet(fetch.span for fetch in self.ranges) == self.chunks, "the pending table disagrees with itself"
        for fetch in self.ranges:
            assert fetch.holder is None or fetch in fetch.holder.asked, "a holder does not know what it is asked for"
