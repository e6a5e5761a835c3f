"""What a file is: its name, its size, and the digests that prove every byte of it.

A *block* is an aligned run of chunks under one digest. Shares end at chunk borders that blocks do not
know of (R1), so a block that a share's border cuts has, besides its own digest, one for each *piece*.
A *unit* is what is verified in one go: a whole block, or a piece of a cut one. Everything a client holds
is made of verified units; so each share can be proved by itself.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from pspd.core.model.ranges import Range, RangeSet
from pspd.errors import BadArgument, BadName

CHUNK_BYTES = 1024
DIGEST_BYTES = 32
FILE_CHUNKS_MAX = 2**32 - 1
BLOCK_COUNT_MAX = 2**20
NAME_BYTES_MAX = 254
SHARE_COUNT_MAX = 100_000
USUAL_MODE = 0o644
"""The permission bits of a file of whose mode its manifest says nothing."""
MODE_BITS = 0o777
OWNER_READS = 0o400
STORE_FOLDER = ".psp"
"""The hidden folder in a client's folder that keeps unfinished work; no file may bear its name."""

_BLOCK_BYTES_MIN = CHUNK_BYTES
_BLOCK_BYTES_USUAL_MAX = 64 * 1024
_BLOCK_COUNT_USUAL_MAX = 2048

FileId = bytes
Digest = Callable[[Iterable[bytes | bytearray | memoryview]], bytes]
"""Takes the parts of a run of bytes, in order, and gives their digest (32 bytes)."""
ReadAt = Callable[[int, int], "bytes | memoryview"]
"""Takes an offset and a length in bytes and gives exactly those bytes of a file."""


def chunk_count_of(size_bytes: int) -> int:
    """How many chunks a file of this size has (R3)."""
    return -(-size_bytes // CHUNK_BYTES)


def block_bytes_of(size_bytes: int) -> int:
    """The block size of a file, in bytes: a power of two that depends on its size alone.

    Small blocks keep small files fine-grained; 64 KiB is where BLAKE3 reaches its full speed; beyond
    64 GiB blocks grow so that no manifest passes 32 MiB.
    """

    def smallest(block_count_max: int) -> int:
        wanted = -(-size_bytes // block_count_max)
        return max(_BLOCK_BYTES_MIN, 1 << max(0, wanted - 1).bit_length())

    return max(min(smallest(_BLOCK_COUNT_USUAL_MAX), _BLOCK_BYTES_USUAL_MAX), smallest(BLOCK_COUNT_MAX))


def validate_name(name: str) -> str:
    """Returns the name if it is one that stays inside a client's folder.

    Raises:
        BadName: it is empty, too long, a folder, a path, or holds control characters.
    """
    shown = repr(name if len(name) <= 60 else name[:57] + "...")
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        raise BadName(f"name {shown} is not valid Unicode: give another with --name") from None
    if not name.strip():
        raise BadName("the name is empty: give one with --name")
    if size > NAME_BYTES_MAX:
        raise BadName(f"name {shown} has {size} bytes, the most is {NAME_BYTES_MAX}: give a shorter one with --name")
    if "/" in name or "\\" in name:
        raise BadName(f"name {shown} is a path: give a plain file name with --name")
    if name in (".", "..", STORE_FOLDER):
        raise BadName(f"name {shown} means a folder: give another with --name")
    if any(ord(character) < 32 or 127 <= ord(character) < 160 for character in name):
        raise BadName(f"name {shown} holds control characters: give another with --name")
    return name


def _validate_mode(name: str, mode: int, *, is_folder: bool) -> None:
    """Refuses what no source says: other bits than permissions, or a file that its owner may not read.

    Raises:
        BadArgument: the mode is not one that a client may give a file.
    """
    if mode & ~MODE_BITS or not mode & OWNER_READS:
        raise BadArgument(f"mode {mode:#o} of {name!r} is out of range: from 0o400 to 0o777, and its owner may read it")
    if is_folder and mode != USUAL_MODE:
        raise BadArgument(f"mode {mode:#o} of {name!r} is out of place: a folder's modes are in its archive")


def _version_of(mode: int, *, is_folder: bool) -> bytes:
    """What a ``file_id`` begins with: a file of the usual mode has the id that it had before there were modes."""
    if is_folder:
        return b"psp-folder-1\0"
    if mode == USUAL_MODE:
        return b"psp-manifest-1\0"
    return b"psp-manifest-2\0" + mode.to_bytes(2, "big")


@dataclass(frozen=True)
class Manifest:
    """A file's name, size and digests; immutable, and its own proof.

    Attributes:
        name: one path component.
        size_bytes: the file's size.
        block_digests: 32 bytes for each block, concatenated.
        share_count: shares that the file is divided into; 0 before the division.
        cut_digests: 32 bytes for each piece of a cut block, in file order, concatenated.
        is_folder: the file is a folder's archive, to be unpacked where it arrives.
        mode: the permission bits with which the file becomes visible; ``USUAL_MODE`` for a folder, whose archive has
            its modes.
        file_id: the digest of name, size and block digests, of the mode where it is not the usual one, and of whether
            it is a folder. The division does not change it.
        chunk_count: how many chunks the file has.
        block_chunks: how many chunks a block has; the last may be shorter.
        cut_pieces: the pieces of every block that a share's border cuts, in file order.
    """

    name: str
    size_bytes: int
    block_digests: bytes
    file_id: FileId
    share_count: int = 0
    cut_digests: bytes = b""
    is_folder: bool = False
    mode: int = USUAL_MODE
    chunk_count: int = field(init=False, repr=False, compare=False)
    block_chunks: int = field(init=False, repr=False, compare=False)
    cut_pieces: list[Range] = field(init=False, repr=False, compare=False)
    _cut_starts: list[int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        known = partial(object.__setattr__, self)  # the class is frozen
        known("chunk_count", chunk_count_of(self.size_bytes))
        known("block_chunks", block_bytes_of(self.size_bytes) // CHUNK_BYTES)
        known("cut_pieces", self._find_cut_pieces())
        known("_cut_starts", [piece.start for piece in self.cut_pieces])

    @staticmethod
    def parse(
        name: str,
        size_bytes: int,
        block_digests: bytes,
        digest: Digest,
        share_count: int = 0,
        cut_digests: bytes = b"",
        *,
        is_folder: bool = False,
        mode: int = USUAL_MODE,
    ) -> Manifest:
        """A manifest from parts that came from elsewhere.

        Raises:
            BadName: the name may not be used.
            BadArgument: the parts do not fit together.
        """
        validate_name(name)
        if size_bytes < 0 or chunk_count_of(size_bytes) > FILE_CHUNKS_MAX:
            raise BadArgument(f"size {size_bytes} is out of range: a file has at most {FILE_CHUNKS_MAX} chunks")
        if not 0 <= share_count <= SHARE_COUNT_MAX:
            raise BadArgument(f"share count {share_count} is out of range: at most {SHARE_COUNT_MAX}")
        _validate_mode(name, mode, is_folder=is_folder)
        block_count = -(-size_bytes // block_bytes_of(size_bytes))
        if len(block_digests) != block_count * DIGEST_BYTES:
            raise BadArgument(f"manifest of {name!r} has {len(block_digests)} digest bytes for {block_count} blocks")
        encoded = name.encode("utf-8")
        file_id = digest(
            (
                _version_of(mode, is_folder=is_folder),
                size_bytes.to_bytes(8, "big"),
                len(encoded).to_bytes(2, "big"),
                encoded,
                block_digests,
            )
        )
        manifest = Manifest(name, size_bytes, block_digests, file_id, share_count, cut_digests, is_folder, mode)
        if len(cut_digests) != len(manifest.cut_pieces) * DIGEST_BYTES:
            raise BadArgument(f"manifest of {name!r} has {len(cut_digests)} digest bytes for its cut blocks")
        return manifest

    @staticmethod
    def build(
        name: str,
        size_bytes: int,
        read_at: ReadAt,
        digest: Digest,
        *,
        is_folder: bool = False,
        mode: int = USUAL_MODE,
    ) -> Manifest:
        """The manifest of a file that can be read; not yet divided."""
        step = block_bytes_of(size_bytes)
        digests = b"".join(
            digest((read_at(offset, min(step, size_bytes - offset)),)) for offset in range(0, size_bytes, step)
        )
        return Manifest.parse(name, size_bytes, digests, digest, is_folder=is_folder, mode=mode)

    def divided(self, share_count: int, read_at: ReadAt, digest: Digest) -> Manifest:
        """The same file divided into ``share_count`` shares (R1)."""
        bare = replace(self, share_count=share_count, cut_digests=b"")
        cuts = b"".join(digest((read_at(*self.byte_span(*piece)),)) for piece in bare.cut_pieces)
        return replace(bare, cut_digests=cuts)

    def share(self, index: int) -> Range:
        """The ``index``-th share: disjoint, exhaustive, sizes differ by at most one chunk (R1)."""
        return Range(
            index * self.chunk_count // self.share_count,
            (index + 1) * self.chunk_count // self.share_count,
        )

    def byte_span(self, start: int, stop: int) -> tuple[int, int]:
        """Offset and length in bytes of the chunks ``[start, stop)``."""
        offset = start * CHUNK_BYTES
        return offset, min(stop * CHUNK_BYTES, self.size_bytes) - offset

    def has_range(self, start: int, stop: int, length: int) -> bool:
        """Whether the file has the chunks ``[start, stop)``, and they are so many bytes."""
        return stop <= self.chunk_count and length == self.byte_span(start, stop)[1]

    def _find_cut_pieces(self) -> list[Range]:
        pieces: list[Range] = []
        step = self.block_chunks
        for index in range(1, self.share_count):
            border = self.share(index).start
            if border % step == 0 or border == self.chunk_count:
                continue
            if pieces and pieces[-1].start < border < pieces[-1].stop:
                last = pieces.pop()
                pieces += [Range(last.start, border), Range(border, last.stop)]
            elif not (pieces and pieces[-1].start == border):
                block_start = border - border % step
                pieces += [
                    Range(block_start, border),
                    Range(border, min(block_start + step, self.chunk_count)),
                ]
        return pieces

    def unit_at(self, chunk: int) -> tuple[Range, bytes]:
        """The unit that holds a chunk, and its digest."""
        index = bisect_right(self._cut_starts, chunk) - 1
        if index >= 0 and chunk < self.cut_pieces[index].stop:
            return self.cut_pieces[index], self.cut_digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]
        return self.block_at(chunk)

    def block_at(self, chunk: int) -> tuple[Range, bytes]:
        """The block that holds a chunk, cut or not, and its digest."""
        block, step = chunk // self.block_chunks, self.block_chunks
        span = Range(block * step, min((block + 1) * step, self.chunk_count))
        return span, self.block_digests[block * DIGEST_BYTES : (block + 1) * DIGEST_BYTES]

    def cut_pieces_in(self, start: int, stop: int) -> list[Range]:
        """Every piece of a cut block with a chunk in ``[start, stop)``."""
        first = max(0, bisect_right(self._cut_starts, start) - 1)
        behind = bisect_left(self._cut_starts, stop)
        return [piece for piece in self.cut_pieces[first:behind] if piece.stop > start]

    def cut_blocks_in(self, start: int, stop: int) -> list[tuple[Range, bytes]]:
        """Every cut block with a chunk in ``[start, stop)``, and its digest."""
        firsts = dict.fromkeys(piece.start // self.block_chunks for piece in self.cut_pieces_in(start, stop))
        return [self.block_at(first * self.block_chunks) for first in firsts]

    def wrong_units(self, start: int, stop: int, views: list[memoryview], digest: Digest) -> list[Range]:
        """Those units of ``[start, stop)``, a run of whole ones, of which the bytes in ``views`` have other digests."""
        if len(views) == 1 and not self.cut_pieces_in(start, stop):  # nearly always; and then nearly always all right
            view, step = views[0], self.block_chunks * CHUNK_BYTES
            found = b"".join([digest((view[offset : offset + step],)) for offset in range(0, len(view), step)])
            if self.block_digests.startswith(found, start // self.block_chunks * DIGEST_BYTES):
                return []
        wrong = []
        parts = _Parts(views)
        for unit, expected in self.units(start, stop):
            if digest(parts.take(self.byte_span(*unit)[1])) != expected:
                wrong.append(unit)
        return wrong

    def units(self, start: int, stop: int) -> Iterator[tuple[Range, bytes]]:
        """Every unit with a chunk in ``[start, stop)``, with its digest."""
        while start < stop:
            unit, expected = self.unit_at(start)
            yield unit, expected
            start = unit.stop

    def whole_units(self, start: int, stop: int) -> Range:
        """The largest run of whole units inside ``[start, stop)``; empty at ``start`` if there is none."""
        if start >= stop:
            return Range(start, start)
        first = self.unit_at(start)[0]
        low = start if first.start == start else first.stop
        last = self.unit_at(stop - 1)[0]
        high = stop if last.stop == stop else last.start
        return Range(low, high) if low < high else Range(start, start)

    def whole_units_of(self, chunks: RangeSet) -> RangeSet:
        """The part of a set that is made of whole units."""
        return RangeSet(self.whole_units(*span) for span in chunks)

    def frame_from(self, start: int, stop: int, frame_chunks: int) -> Range:
        """The first at most ``frame_chunks`` chunks of ``[start, stop)``, cut where a unit ends in the further half."""
        if stop - start <= frame_chunks:
            return Range(start, stop)
        unit = self.unit_at(start + frame_chunks)[0]
        is_far = unit.start - start >= max(1, frame_chunks // 2)
        return Range(start, unit.start if is_far else start + frame_chunks)


class _Parts:
    """Bytes that lie in several pieces of memory, taken from the front without copying any."""

    def __init__(self, views: list[memoryview]) -> None:
        self._views = views
        self._index = 0
        self._offset = 0

    def take(self, length: int) -> tuple[memoryview, ...]:
        """The next ``length`` bytes, in one view or several."""
        taken = []
        while length:
            view = self._views[self._index]
            part = view[self._offset : self._offset + length]
            taken.append(part)
            length -= len(part)
            self._offset += len(part)
            if self._offset == len(view):
                self._index, self._offset = self._index + 1, 0
        return tuple(taken)
