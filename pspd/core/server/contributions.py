"""Contributions: what holders send is received straight into the cache, and verified there (R9)."""

from __future__ import annotations

from typing import NamedTuple

from pspd.core.cache.cache import Cache
from pspd.core.server.drops import Drops
from pspd.core.server.fetch import Fetch
from pspd.core.server.member import Member
from pspd.core.server.pending import Pending
from pspd.core.server.sessions import Sessions
from pspd.core.server.shared_file import SharedFile
from pspd.core.server.verify import Verifier
from pspd.core.wire.frames import Frame
from pspd.core.wire.header import DropReason, Kind


class Receipt(NamedTuple):
    """A contribution that was accepted; the driver hands it back with the end of its payload.

    Attributes:
        views: where the payload is to be received, in order.
        frame: the contribution's head.
        fetch: what it answers.
        sender: who sends it.
    """

    views: list[memoryview]
    frame: Frame
    fetch: Fetch
    sender: Member


class Contributions:
    """Accepts, verifies and caches contributions.

    Args:
        cache: where they are received.
        pending: what is being fetched.
        verifier: takes their digests.
        sessions: who is connected.
        drops: counts what is dropped.
    """

    def __init__(self, cache: Cache, pending: Pending, verifier: Verifier, sessions: Sessions, drops: Drops) -> None:
        self._cache = cache
        self._pending = pending
        self._verifier = verifier
        self._sessions = sessions
        self._drops = drops

    def accept(self, frame: Frame, file: SharedFile | None, origin: str, now: int) -> Receipt | None:
        """Accept a contribution's head, or drop it.

        Args:
            frame: the head.
            file: the file that it names; None if there is none.
            origin: where it came from, for messages.
            now: the time, in nanoseconds.

        Returns:
            None if the payload is to be dropped.
        """
        member = self._sessions.find(frame.session)
        if frame.kind is not Kind.CONTRIBUTION:
            self._drops.drop(DropReason.UNKNOWN_KIND, origin)
        elif member is None:
            self._drops.drop(DropReason.UNKNOWN_SESSION, origin)
        elif file is None or not file.is_divided:
            self._drops.drop(DropReason.UNKNOWN_FILE, member.name)
        elif not file.manifest.has_range(frame.start, frame.stop, frame.length):
            self._drops.drop(DropReason.BAD_RANGE, member.name)
        else:
            fetch = self._pending.accept(member, file, frame, now)
            if not isinstance(fetch, DropReason):
                views = self._cache.views(file.file_id, frame.start, frame.stop, frame.length)
                return Receipt(views, frame, fetch, member)
            self._drops.drop(fetch, member.name)
        return None

    def received(self, receipt: Receipt, now: int) -> bool:
        """Verify a payload and cache it (R9).

        Args:
            receipt: of the contribution.
            now: the time, in nanoseconds.

        Returns:
            Whether it was good, and what it answers has ended.
        """
        _, frame, fetch, sender = receipt
        file, span = fetch.file, fetch.span
        member = sender if self._sessions.is_current(sender) else None
        if not self._verifier.is_good(file, file.manifest.whole_units(*span)):
            file.traffic.count_corrupt(frame.length)
            self._verifier.blame(member, file, span)
            self._pending.retry(fetch, now)
            self._drops.drop(DropReason.CORRUPT, self._sessions.name_of(frame.session))
            return False
        self._pending.received(fetch, member, now)
        file.traffic.count_contribution(frame.length)
        if member is not None:
            self._verifier.note_parts(member, file, span)
        self._cache.commit(file.file_id, *span)
        return True

    def aborted(self, receipt: Receipt, now: int) -> None:
        """Ask again for a contribution whose rest will not come.

        Args:
            receipt: of the contribution.
            now: the time, in nanoseconds.
        """
        self._drops.drop(DropReason.ABORTED, self._sessions.name_of(receipt.frame.session))
        self._pending.retry(receipt.fetch, now)
