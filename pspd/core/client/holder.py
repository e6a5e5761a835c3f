"""The holder: answers broadcasts with contributions (R8)."""

from __future__ import annotations

from collections.abc import Iterator

from pspd.core.model.manifest import FileId, Manifest
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.tuning import ClientTuning
from pspd.core.wire.datagrams import EVERY_HOLDER, OWNERS, Broadcast
from pspd.core.wire.frames import FRAME_PAYLOAD_BYTES_MAX, Frame
from pspd.core.wire.header import Kind


class Holder:
    """The files that a client can contribute, and the numbers of the broadcasts that it has answered.

    Args:
        tuning: the client's tunables.
    """

    def __init__(self, tuning: ClientTuning) -> None:
        self._tuning = tuning
        self._files: dict[FileId, tuple[Manifest, RangeSet]] = {}
        self._answered: dict[int, None] = {}  # numbers of broadcasts, oldest first

    def add(self, manifest: Manifest, verified: RangeSet) -> None:
        """Begin to contribute a file, or replace the manifest and the chunks of a contributed file.

        Args:
            manifest: the manifest of the file.
            verified: the verified chunks of the file, as a live view.
        """
        self._files[manifest.file_id] = (manifest, verified)

    def remove(self, file_id: FileId) -> None:
        """Stop contributing a file."""
        self._files.pop(file_id, None)

    def name_of(self, file_id: FileId) -> str | None:
        """Return the name of a file; None if the file is unknown."""
        file = self._files.get(file_id)
        return file[0].name if file is not None else None

    def start_session(self) -> None:
        """Forget the answered broadcasts of the last session."""
        self._answered.clear()

    def answer(self, broadcast: Broadcast, shares: tuple[Range, ...]) -> list[Frame] | None:
        """Return the contributions to a broadcast; if there are any, remember the broadcast as answered.

        The client contributes each range that it is asked for, if it holds the whole range and a frame can carry it.

        Args:
            broadcast: the broadcast.
            shares: the client's shares of the file.

        Returns:
            The heads of the contributions; an empty list if the client can contribute nothing; None if the client has
            already answered this broadcast.
        """
        file = self._files.get(broadcast.file_id)
        if file is None:
            return []
        if broadcast.number in self._answered:
            return None
        manifest, verified = file
        session, file_id, number = broadcast.session, broadcast.file_id, broadcast.number
        frames = []
        for start, stop in _asked_of(broadcast, shares):
            length = manifest.byte_span(start, stop)[1]
            if verified.covers(start, stop) and length <= FRAME_PAYLOAD_BYTES_MAX:
                frames.append(Frame(Kind.CONTRIBUTION, session, file_id, start, stop, length, number))
        if frames:
            self._answered[broadcast.number] = None
            if len(self._answered) > self._tuning.answered_broadcasts_max:
                del self._answered[next(iter(self._answered))]
        return frames


def _asked_of(broadcast: Broadcast, shares: tuple[Range, ...]) -> Iterator[tuple[int, int]]:
    """Iterate over the ranges that a broadcast asks a client to send.

    Args:
        broadcast: the broadcast, which names the client's session.
        shares: the client's shares of the file.
    """
    for entry in broadcast.asked:
        if entry.responder in (EVERY_HOLDER, broadcast.session):
            yield entry.start, entry.stop
        elif entry.responder == OWNERS:
            for start, stop in shares:
                if start < entry.stop and entry.start < stop:
                    yield max(start, entry.start), min(stop, entry.stop)
