"""A range that is being fetched: an entry of the pending table (R7).

The table stands beside the cache, never in it. Who waits for a range is whoever has it open: what
arrives is handed to all of them before it can be evicted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pspd.core.server.members import Member
    from pspd.core.server.shared_file import SharedFile


class Fetch:
    """One range that was broadcast and has not yet come.

    Attributes:
        order: how many fetches had been started when it was, itself included.
        number: that of the last broadcast that asked for it.
        asked_at: when that was sent, in nanoseconds.
        tries: how often it was asked for.
        holder: the member that was named to answer; None when every holder is asked.
        sender: the session whose contribution is being received; None while none is.
        overtaken: the holder named has answered a later broadcast: this one was lost.
    """

    __slots__ = (
        "asked_at",
        "file",
        "holder",
        "number",
        "order",
        "overtaken",
        "sender",
        "start",
        "stop",
        "tries",
    )

    def __init__(self, file: SharedFile, start: int, stop: int, holder: Member | None, order: int) -> None:
        self.file = file
        self.order = order
        self.start = start
        self.stop = stop
        self.number = 0
        self.asked_at = 0
        self.tries = 0
        self.holder = holder
        self.sender: int | None = None
        self.overtaken = False

    @property
    def chunk_count(self) -> int:
        """How many chunks are being fetched."""
        return self.stop - self.start

    @property
    def is_wanted(self) -> bool:
        """Whether anyone waits for some of it, however far behind the others."""
        return any(interest.open.overlaps(self.start, self.stop) for interest in self.file.waiting)

    def piece(self, start: int, stop: int) -> Fetch:
        """A fetch of a part of this one."""
        piece = Fetch(self.file, start, stop, None, self.order)
        piece.tries = self.tries
        return piece
