"""The pins of the cache: ranges that are being sent and must not be evicted."""

from __future__ import annotations

from pspd.core.model.manifest import FileId
from pspd.core.model.ranges import Range, RangeSet


class Pins:
    """Ranges of files, each pinned any number of times, and the union of all pinned chunks.

    With thousands of clients, hundreds of pins may cover one chunk, so pins are not counted per chunk. The union grows
    with each pin, but does not shrink when a pin ends. It is rebuilt when the exact union is needed, which is rare
    while the cache has room.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[FileId, int, int], int] = {}
        self._unions: dict[FileId, RangeSet] = {}
        self._union_chunks = 0
        self._is_exact = True

    def add(self, file_id: FileId, start: int, stop: int) -> None:
        """Pin a range once more.

        Args:
            file_id: the id of the file.
            start: the first chunk.
            stop: one past the last chunk.
        """
        pin = (file_id, start, stop)
        self._counts[pin] = self._counts.get(pin, 0) + 1
        self._unite(*pin)

    def remove(self, file_id: FileId, start: int, stop: int) -> None:
        """End one pin of a range.

        Args:
            file_id: the id of the file.
            start: the first chunk of the pinned range.
            stop: one past the last chunk of the pinned range.
        """
        pin = (file_id, start, stop)
        assert pin in self._counts, "the range is not pinned"
        self._counts[pin] -= 1
        if self._counts[pin] == 0:
            del self._counts[pin]
            self._is_exact = False

    @property
    def pinned_upper_bound(self) -> int:
        """An upper bound of the number of pinned chunks. Reading it does not rebuild the union."""
        return self._union_chunks

    @property
    def chunk_count(self) -> int:
        """The exact number of pinned chunks. Reading it may rebuild the union."""
        self._rebuild()
        return self._union_chunks

    def unpinned(self, file_id: FileId, start: int, stop: int) -> list[Range]:
        """Return the parts of a range that are not pinned, ascending.

        Args:
            file_id: the id of the file.
            start: the first chunk of the range.
            stop: one past the last chunk of the range.
        """
        self._rebuild()
        union = self._unions.get(file_id)
        return union.gaps(start, stop) if union else [Range(start, stop)]

    def check(self) -> None:
        """Assert that the union covers every pin, and nothing else if it is exact."""
        assert self._union_chunks == sum(union.chunk_count for union in self._unions.values()), "miscounted"
        exact: dict[FileId, RangeSet] = {}
        for (file_id, start, stop), count in self._counts.items():
            assert count > 0, "a pin that has ended is left"
            assert self._unions[file_id].covers(start, stop), "a pin is not in the union"
            exact.setdefault(file_id, RangeSet()).add(start, stop)
        assert not self._is_exact or exact == self._unions, "the union has more than the pins"

    def _unite(self, file_id: FileId, start: int, stop: int) -> None:
        union = self._unions.get(file_id)
        if union is None:
            union = self._unions[file_id] = RangeSet()
        before_chunks = union.chunk_count
        union.add(start, stop)
        self._union_chunks += union.chunk_count - before_chunks

    def _rebuild(self) -> None:
        """Rebuild the union if pins have ended since it was built."""
        if not self._is_exact:
            self._is_exact = True
            self._union_chunks = 0
            self._unions.clear()
            for pin in sorted(self._counts):  # a set grows fastest if ranges are added in ascending order
                self._unite(*pin)
