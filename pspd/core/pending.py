"""A range that is being fetched, and who waits for it: an entry of the pending table (R7).

The table stands beside the cache, never in it: what arrives is handed to those who wait and is cached
besides, so that nothing that happens to the cache can lose a waiter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pspd.core.ranges import Range

if TYPE_CHECKING:
    from pspd.core.members import Interest, Member
    from pspd.core.shared_file import SharedFile


class Fetch:
    """One range that was broadcast and has not yet come.

    Attributes:
        number: that of the last broadcast that asked for it.
        asked_at: when that was sent, in nanoseconds.
        tries: how often it was asked for.
        holder: the member that was named to answer; None when every holder is asked.
        sender: the session whose contribution is being received; None while none is.
        overtaken: the holder named has answered a later broadcast: this one was lost.
        waiters: who is to get it when it comes, and which part of it.
        echoes: the request of each waiter that the delivery answers; 0 if that is no measure of a round trip.
    """

    __slots__ = (
        "asked_at",
        "echoes",
        "file",
        "holder",
        "number",
        "overtaken",
        "sender",
        "start",
        "stop",
        "tries",
        "waiters",
    )

    def __init__(self, file: SharedFile, start: int, stop: int, holder: Member | None) -> None:
        self.file = file
        self.start = start
        self.stop = stop
        self.number = 0
        self.asked_at = 0
        self.tries = 0
        self.holder = holder
        self.sender: int | None = None
        self.overtaken = False
        self.waiters: dict[Interest, list[Range]] = {}
        self.echoes: dict[Interest, int] = {}

    @property
    def chunk_count(self) -> int:
        """How many chunks are being fetched."""
        return self.stop - self.start

    def join(self, interest: Interest, start: int, stop: int) -> None:
        """Lets someone wait for a part of the range."""
        self.waiters.setdefault(interest, []).append(Range(start, stop))
        self.echoes[interest] = interest.echo
        interest.promise(start, stop)

    def leave(self, interest: Interest) -> None:
        """Someone waits no longer."""
        self.waiters.pop(interest, None)

    def piece(self, start: int, stop: int) -> Fetch:
        """A fetch of a part of this one, with the same people waiting."""
        piece = Fetch(self.file, start, stop, None)
        piece.tries = self.tries
        for interest, parts in self.waiters.items():
            inside = [Range(max(start, low), min(stop, high)) for low, high in parts if low < stop and start < high]
            if inside:
                piece.waiters[interest] = inside
        return piece
