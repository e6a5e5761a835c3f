"""Contributions: receives them into the cache, verifies them, and handles senders of wrong bytes (R9)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from pspd.core.cache.cache import Cache
from pspd.core.effects.server import VerifyFile
from pspd.core.model.manifest import DigestFunction, FileId
from pspd.core.model.ranges import Range
from pspd.core.model.tuning import ServerTuning
from pspd.core.server.pending import Fetch, Pending
from pspd.core.server.sessions import Member, Sessions
from pspd.core.server.shared_file import SharedFile
from pspd.core.server.work_set import WorkSet
from pspd.core.wire.frames import Frame
from pspd.core.wire.header import DropReason, Kind


class Reception(NamedTuple):
    """A contribution that is being received. The driver passes it back when the payload is complete or has broken off.

    Attributes:
        views: the memory for the payload, in order.
        frame: the contribution's head.
        fetch: the fetch that the contribution answers.
        sender: the member that sends the contribution.
    """

    views: list[memoryview]
    frame: Frame
    fetch: Fetch
    sender: Member


@dataclass(eq=False)
class Contributions:
    """Accepts, verifies and caches contributions.

    Args:
        _cache: the cache, which has the memory for payloads.
        _digest: the function that computes the digests in manifests.
        _pending: the pending table.
        _sessions: the connected members.
        _work: the work set, which notes what must be done next.
        _tuning: the limit on the remembered senders of partial units.
    """

    _cache: Cache
    _digest: DigestFunction
    _pending: Pending
    _sessions: Sessions
    _work: WorkSet
    _tuning: ServerTuning
    _part_senders: dict[tuple[FileId, int], str] = field(default_factory=dict)

    def accept(self, frame: Frame, file: SharedFile | None, origin: str, now: int) -> Reception | None:
        """Accept a contribution by its head, or drop it.

        Args:
            frame: the head.
            file: the file that the head names; None if there is no such file.
            origin: the sender's address, for messages.
            now: the time, in nanoseconds.

        Returns:
            The reception; None if the payload must be dropped.
        """
        member = self._sessions.find(frame.session)
        if frame.kind is not Kind.CONTRIBUTION:
            self._work.drop(DropReason.UNKNOWN_KIND, origin)
        elif member is None:
            self._work.drop(DropReason.UNKNOWN_SESSION, origin)
        elif file is None or not file.is_divided:
            self._work.drop(DropReason.UNKNOWN_FILE, member.name)
        elif not file.manifest.has_range(frame.start, frame.stop, frame.length):
            self._work.drop(DropReason.BAD_RANGE, member.name)
        else:
            fetch = self._pending.accept(member, file, frame, now)
            if not isinstance(fetch, DropReason):
                views = self._cache.views(file.file_id, frame.start, frame.stop, frame.length)
                return Reception(views, frame, fetch, member)
            self._work.drop(fetch, member.name)
        return None

    def finish(self, reception: Reception, now: int) -> bool:
        """Verify the whole units of a complete payload, and cache the payload if they are correct (R9).

        Partial units at the ends are cached unverified. If a unit is wrong, the payload is dropped, and the range is
        asked for again. The sender no longer counts as a holder of the range, and must verify the file.

        Args:
            reception: the contribution, with the complete payload.
            now: the time, in nanoseconds.

        Returns:
            Whether the payload is cached. If so, the fetch has ended.
        """
        _, frame, fetch, sender = reception
        file, span = fetch.file, fetch.span
        member = sender if self._sessions.is_current(sender) else None
        if not self.is_correct(file, file.manifest.whole_units(*span)):
            file.traffic.count_corrupt(frame.length)
            self._require_verification(member, file, span)
            self._pending.schedule_retry(fetch, now)
            self._work.drop(DropReason.CORRUPT, self._sessions.name_of(frame.session))
            return False
        self._pending.finish(fetch, member, now)
        file.traffic.count_contribution(frame.length)
        if member is not None:
            self._remember_part_senders(member, file, span)
        self._cache.commit(file.file_id, *span)
        return True

    def abort(self, reception: Reception, now: int) -> None:
        """Drop a contribution that broke off, and ask for its range again.

        Args:
            reception: the contribution.
            now: the time, in nanoseconds.
        """
        self._work.drop(DropReason.ABORTED, self._sessions.name_of(reception.frame.session))
        self._pending.schedule_retry(reception.fetch, now)

    def is_correct(self, file: SharedFile, units: Range) -> bool:
        """Return whether every unit of a received range has the digest that the manifest states.

        Args:
            file: the file.
            units: the range of whole units, whose bytes are in the memory of the cache.
        """
        views = self._cache.views(file.file_id, *units, file.manifest.byte_span(*units)[1])
        return not file.manifest.corrupt_units(*units, views, self._digest)

    def recheck_cached(self, file: SharedFile, ranges: Iterable[Range]) -> None:
        """Verify the cached units of chunks that a client received and requests again. Drop wrong and partial units.

        The client may have found the chunks corrupt, because the server did not verify units that it received in parts.
        If a unit is wrong, the known senders of its parts no longer count as its holders, and must verify the file.

        Args:
            file: the file.
            ranges: the received chunks that the client requests again.
        """
        for span in ranges:
            for unit, _ in file.manifest.units(*span):
                is_whole = self._cache.cached(file.file_id, *unit) == [unit]
                if is_whole and self.is_correct(file, unit):
                    continue
                self._cache.drop(file.file_id, *unit)
                if is_whole:
                    file.traffic.count_corrupt(file.manifest.byte_span(*unit)[1])
                    senders = (self._part_senders.get((file.file_id, chunk), "") for chunk in range(*unit))
                    for sender in dict.fromkeys(senders):
                        self._require_verification(self._sessions.members.get(sender), file, unit)

    def _require_verification(self, member: Member | None, file: SharedFile, span: Range) -> None:
        """Note that a sender of wrong bytes lacks a range, and tell this member to verify the file.

        Do nothing if the sender is not connected, or if the server already knows that it lacks the whole range.
        """
        if member is not None and file.availability.remove_arrived(member.name, [span]):
            self._work.emit(VerifyFile(member.session, file.file_id))

    def _remember_part_senders(self, member: Member, file: SharedFile, span: Range) -> None:
        """Remember who sent the partial units at the ends of a range, because these units may prove wrong later."""
        whole = file.manifest.whole_units(span.start, span.stop)
        for chunk in (*range(span.start, whole.start), *range(whole.stop, span.stop)):
            self._part_senders[file.file_id, chunk] = member.name
        while len(self._part_senders) > self._tuning.partial_unit_chunks_max:
            del self._part_senders[next(iter(self._part_senders))]
