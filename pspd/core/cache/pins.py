"""What the cache is sending, and may not evict: ranges that are pinned, each as often as it is being sent."""

from __future__ import annotations

from pspd.core.model.manifest import FileId
from pspd.core.model.ranges import Range, RangeSet


class Pins:
    """Ranges of files, pinned any number of times, and the chunks under at least one pin.

    Ranges that are pinned at a time overlap in every way, with thousands of clients each chunk under hundreds of
    pins. So nothing is counted per chunk: the union grows with each pin, and is made anew, when somebody must know
    it exactly, after pins have ended. With room in the cache nobody must.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[FileId, int, int], int] = {}
        self._unions: dict[FileId, RangeSet] = {}
        self._bound_chunks = 0
        self._is_exact = True

    def add(self, file_id: FileId, start: int, stop: int) -> None:
        """Pins a range once more."""
        pin = (file_id, start, stop)
        self._counts[pin] = self._counts.get(pin, 0) + 1
        self._unite(*pin)

    def remove(self, file_id: FileId, start: int, stop: int) -> None:
        """Ends one pin of a range, which is pinned just so."""
        pin = (file_id, start, stop)
        assert pin in self._counts, "the range is not pinned"
        self._counts[pin] -= 1
        if self._counts[pin] == 0:
            del self._counts[pin]
            self._is_exact = False

    @property
    def bound_chunks(self) -> int:
        """At most so many chunks are pinned, which is quickly told."""
        return self._bound_chunks

    @property
    def chunk_count(self) -> int:
        """How many chunks are pinned."""
        self._make_exact()
        return self._bound_chunks

    def unpinned(self, file_id: FileId, start: int, stop: int) -> list[Range]:
        """The parts of a range that are not pinned, ascending."""
        self._make_exact()
        union = self._unions.get(file_id)
        return union.gaps(start, stop) if union else [Range(start, stop)]

    def _unite(self, file_id: FileId, start: int, stop: int) -> None:
        union = self._unions.get(file_id)
        if union is None:
            union = self._unions[file_id] = RangeSet()
        before_chunks = union.chunk_count
        union.add(start, stop)
        self._bound_chunks += union.chunk_count - before_chunks

    def _make_exact(self) -> None:
        if not self._is_exact:
            self._is_exact = True
            self._bound_chunks = 0
            self._unions.clear()
            for pin in sorted(self._counts):  # ascending sets are made quickly
                self._unite(*pin)
