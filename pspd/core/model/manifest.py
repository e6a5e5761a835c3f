"""Manifests: the name, size and mode of a file, and the digests that verify its bytes.

A *block* is an aligned run of chunks with one digest. Shares end at chunk boundaries (R1), which may lie inside a
block. If the boundary of a share cuts a block into *pieces*, each piece has a digest too. A *unit* is an uncut block,
or a piece of a cut one; it is verified as a whole. A share consists of whole units, so it can be verified alone.
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
DEFAULT_MODE = 0o644
"""The default permission bits of a file. In messages, 0 stands for this mode."""
MODE_BITS = 0o777
OWNER_READ_BIT = 0o400
"""The permission bit that every file must have: its owner may read it."""
STORE_FOLDER = ".psp"
"""The hidden folder in a client's folder, for unfinished files and the client's records. No file may have this name."""

_BLOCK_BYTES_MIN = CHUNK_BYTES
_BLOCK_BYTES_USUAL_MAX = 64 * 1024
_BLOCK_COUNT_USUAL_MAX = 2048

FileId = bytes
DigestFunction = Callable[[Iterable[bytes | bytearray | memoryview]], bytes]
"""A function that gets some bytes in consecutive parts, and returns their digest of 32 bytes."""
ReadAt = Callable[[int, int], "bytes | memoryview"]
"""A function that gets an offset and a length, in bytes, and returns exactly these bytes of a file."""


def chunk_count_of(size_bytes: int) -> int:
    """Return how many chunks a file of this size has (R3)."""
    return -(-size_bytes // CHUNK_BYTES)


def block_bytes_of(size_bytes: int) -> int:
    """Return the block size of a file, in bytes: a power of two that depends only on the size of the file.

    Small files have small blocks, so that even a small file has many blocks. Blocks of 64 KiB suffice for BLAKE3's full
    speed. In files beyond 64 GiB blocks are larger, so that no manifest has more than 32 MiB of block digests.
    """

    def smallest(block_count_max: int) -> int:
        wanted = -(-size_bytes // block_count_max)
        return max(_BLOCK_BYTES_MIN, 1 << max(0, wanted - 1).bit_length())

    return max(min(smallest(_BLOCK_COUNT_USUAL_MAX), _BLOCK_BYTES_USUAL_MAX), smallest(BLOCK_COUNT_MAX))


def validate_name(name: str) -> str:
    """Return the name if it is a valid file name in a client's folder.

    Raises:
        BadName: the name is blank, too long, not valid Unicode, a path, ``.``, ``..`` or ``.psp``, or has control
            characters.
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
        raise BadName(f"name {shown} has control characters: give another with --name")
    return name


def _id_prefix(mode: int, *, is_folder: bool) -> bytes:
    """Return the prefix of the bytes whose digest is the file id. It has the mode only if this is not the default."""
    if is_folder:
        return b"psp-folder-1\0"
    if mode == DEFAULT_MODE:
        return b"psp-manifest-1\0"
    return b"psp-manifest-2\0" + mode.to_bytes(2, "big")


@dataclass(frozen=True)
class Manifest:
    """The name, size, mode and digests of a file. Immutable.

    Attributes:
        name: the file's name, one path component.
        size_bytes: the size of the file, in bytes.
        block_digests: the digests of the blocks, 32 bytes each, concatenated.
        file_id: the digest of the size, the name and the block digests, after a prefix that depends on the mode and on
            whether the file is a folder. The file id does not depend on the division.
        share_count: the number of shares; 0 before the division.
        cut_digests: the digests of the pieces of cut blocks, 32 bytes each, in the order of the file, concatenated.
        is_folder: whether the file is the archive of a folder, which clients unpack.
        mode: the permission bits of the visible file; ``DEFAULT_MODE`` for a folder, whose archive contains the modes.
        chunk_count: the number of chunks in the file.
        block_chunks: the number of chunks in a block; the last block may have fewer.
        cut_pieces: the pieces of all cut blocks, in the order of the file.
    """

    name: str
    size_bytes: int
    block_digests: bytes
    file_id: FileId
    share_count: int = 0
    cut_digests: bytes = b""
    is_folder: bool = False
    mode: int = DEFAULT_MODE
    chunk_count: int = field(init=False, repr=False, compare=False)
    block_chunks: int = field(init=False, repr=False, compare=False)
    cut_pieces: list[Range] = field(init=False, repr=False, compare=False)
    _cut_starts: list[int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Derive the fields that depend on the others."""
        derive = partial(object.__setattr__, self)  # the class is frozen
        derive("chunk_count", chunk_count_of(self.size_bytes))
        derive("block_chunks", block_bytes_of(self.size_bytes) // CHUNK_BYTES)
        derive("cut_pieces", self._find_cut_pieces())
        derive("_cut_starts", [piece.start for piece in self.cut_pieces])

    @staticmethod
    def parse(
        name: str,
        size_bytes: int,
        block_digests: bytes,
        digest: DigestFunction,
        share_count: int = 0,
        cut_digests: bytes = b"",
        *,
        is_folder: bool = False,
        mode: int = DEFAULT_MODE,
    ) -> Manifest:
        """Check the untrusted fields of a manifest, and return the manifest.

        Args:
            name: the file's name.
            size_bytes: the file's size, in bytes.
            block_digests: the digests of the blocks, concatenated.
            digest: the digest function.
            share_count: the number of shares; 0 before the division.
            cut_digests: the digests of the pieces of cut blocks, concatenated.
            is_folder: whether the file is the archive of a folder.
            mode: the file's permission bits.

        Raises:
            BadName: the name is not allowed.
            BadArgument: a field is out of range, or the fields do not fit together.
        """
        validate_name(name)
        if size_bytes < 0 or chunk_count_of(size_bytes) > FILE_CHUNKS_MAX:
            raise BadArgument(f"size {size_bytes} is out of range: a file has at most {FILE_CHUNKS_MAX} chunks")
        if not 0 <= share_count <= SHARE_COUNT_MAX:
            raise BadArgument(f"share count {share_count} is out of range: at most {SHARE_COUNT_MAX}")
        if mode & ~MODE_BITS or not mode & OWNER_READ_BIT:
            raise BadArgument(
                f"mode {mode:#o} of {name!r} is not allowed: name at most 0o777, with read permission for the owner"
            )
        if is_folder and mode != DEFAULT_MODE:
            raise BadArgument(f"mode {mode:#o} of {name!r} is out of place: a folder's modes are in its archive")
        block_count = -(-size_bytes // block_bytes_of(size_bytes))
        if len(block_digests) != block_count * DIGEST_BYTES:
            raise BadArgument(f"manifest of {name!r} has {len(block_digests)} digest bytes for {block_count} blocks")
        encoded = name.encode("utf-8")
        sizes = size_bytes.to_bytes(8, "big") + len(encoded).to_bytes(2, "big")
        file_id = digest((_id_prefix(mode, is_folder=is_folder), sizes, encoded, block_digests))
        manifest = Manifest(name, size_bytes, block_digests, file_id, share_count, cut_digests, is_folder, mode)
        if len(cut_digests) != len(manifest.cut_pieces) * DIGEST_BYTES:
            raise BadArgument(f"manifest of {name!r} has {len(cut_digests)} digest bytes for its cut blocks")
        return manifest

    @staticmethod
    def build(
        name: str,
        size_bytes: int,
        read_at: ReadAt,
        digest: DigestFunction,
        *,
        is_folder: bool = False,
        mode: int = DEFAULT_MODE,
    ) -> Manifest:
        """Read a file, and return its manifest. The file is not yet divided.

        Args:
            name: the file's name.
            size_bytes: the file's size, in bytes.
            read_at: the function that reads the file.
            digest: the digest function.
            is_folder: whether the file is the archive of a folder.
            mode: the file's permission bits.

        Raises:
            BadName: the name is not allowed.
            BadArgument: the size or the mode is out of range.
        """
        step = block_bytes_of(size_bytes)
        digests = b"".join(
            digest((read_at(offset, min(step, size_bytes - offset)),)) for offset in range(0, size_bytes, step)
        )
        return Manifest.parse(name, size_bytes, digests, digest, is_folder=is_folder, mode=mode)

    def divided(self, share_count: int, read_at: ReadAt, digest: DigestFunction) -> Manifest:
        """Read the pieces of cut blocks, and return the manifest of the same file divided into shares (R1).

        Args:
            share_count: the number of shares.
            read_at: the function that reads the file.
            digest: the digest function.
        """
        bare = replace(self, share_count=share_count, cut_digests=b"")
        cuts = b"".join(digest((read_at(*self.byte_span(*piece)),)) for piece in bare.cut_pieces)
        return replace(bare, cut_digests=cuts)

    def share(self, index: int) -> Range:
        """Return a share by its index, from 0. The sizes of shares differ by at most one chunk (R1)."""
        return Range(index * self.chunk_count // self.share_count, (index + 1) * self.chunk_count // self.share_count)

    def byte_span(self, start: int, stop: int) -> tuple[int, int]:
        """Return the offset and length of a range, in bytes.

        Args:
            start: the first chunk.
            stop: one past the last chunk.
        """
        offset = start * CHUNK_BYTES
        return offset, min(stop * CHUNK_BYTES, self.size_bytes) - offset

    def has_range(self, start: int, stop: int, length: int) -> bool:
        """Return whether a range is inside the file and has exactly ``length`` bytes.

        Args:
            start: the first chunk.
            stop: one past the last chunk.
            length: the expected length of the range, in bytes.
        """
        return stop <= self.chunk_count and length == self.byte_span(start, stop)[1]

    def _find_cut_pieces(self) -> list[Range]:
        pieces: list[Range] = []
        step = self.block_chunks
        for index in range(1, self.share_count):
            boundary = self.share(index).start
            if boundary % step == 0 or boundary == self.chunk_count:
                continue
            if pieces and pieces[-1].start < boundary < pieces[-1].stop:
                last = pieces.pop()
                pieces += [Range(last.start, boundary), Range(boundary, last.stop)]
            elif not (pieces and pieces[-1].start == boundary):
                block = self.block_at(boundary)[0]
                pieces += [Range(block.start, boundary), Range(boundary, block.stop)]
        return pieces

    def unit_at(self, chunk: int) -> tuple[Range, bytes]:
        """Return the unit that contains a chunk, with the unit's digest."""
        index = bisect_right(self._cut_starts, chunk) - 1
        if index >= 0 and chunk < self.cut_pieces[index].stop:
            return self.cut_pieces[index], self.cut_digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]
        return self.block_at(chunk)

    def block_at(self, chunk: int) -> tuple[Range, bytes]:
        """Return the block that contains a chunk, cut or not, with the block's digest."""
        block, step = chunk // self.block_chunks, self.block_chunks
        span = Range(block * step, min((block + 1) * step, self.chunk_count))
        return span, self.block_digests[block * DIGEST_BYTES : (block + 1) * DIGEST_BYTES]

    def cut_pieces_in(self, start: int, stop: int) -> list[Range]:
        """Return the pieces that overlap a range.

        Args:
            start: the first chunk.
            stop: one past the last chunk.
        """
        first = max(0, bisect_right(self._cut_starts, start) - 1)
        last = bisect_left(self._cut_starts, stop)
        return [piece for piece in self.cut_pieces[first:last] if piece.stop > start]

    def cut_blocks_in(self, start: int, stop: int) -> list[tuple[Range, bytes]]:
        """Return the cut blocks that overlap a range, each with its digest.

        Args:
            start: the first chunk.
            stop: one past the last chunk.
        """
        blocks = dict.fromkeys(piece.start // self.block_chunks for piece in self.cut_pieces_in(start, stop))
        return [self.block_at(block * self.block_chunks) for block in blocks]

    def corrupt_units(self, start: int, stop: int, views: list[memoryview], digest: DigestFunction) -> list[Range]:
        """Return the units in a range whose bytes do not match their digests. The range has only whole units.

        Args:
            start: the first chunk of the first unit.
            stop: one past the last chunk of the last unit.
            views: the bytes of the range, as consecutive views.
            digest: the digest function.
        """
        if len(views) == 1 and not self.cut_pieces_in(start, stop):  # the usual case, and usually nothing is wrong
            view, step = views[0], self.block_chunks * CHUNK_BYTES
            found = b"".join([digest((view[offset : offset + step],)) for offset in range(0, len(view), step)])
            if self.block_digests.startswith(found, start // self.block_chunks * DIGEST_BYTES):
                return []
        rest, wrong = views.copy(), []
        for unit, expected in self.units(start, stop):
            if digest(_take(rest, self.byte_span(*unit)[1])) != expected:
                wrong.append(unit)
        return wrong

    def units(self, start: int, stop: int) -> Iterator[tuple[Range, bytes]]:
        """Iterate over the units that overlap a range, each with its digest.

        Args:
            start: the first chunk.
            stop: one past the last chunk.
        """
        while start < stop:
            unit, expected = self.unit_at(start)
            yield unit, expected
            start = unit.stop

    def whole_units(self, start: int, stop: int) -> Range:
        """Return the largest run of whole units inside a range; an empty range at ``start`` if there is none.

        Args:
            start: the first chunk.
            stop: one past the last chunk.
        """
        if start >= stop:
            return Range(start, start)
        first = self.unit_at(start)[0]
        low = start if first.start == start else first.stop
        last = self.unit_at(stop - 1)[0]
        high = stop if last.stop == stop else last.start
        return Range(low, high) if low < high else Range(start, start)

    def whole_units_of(self, chunks: RangeSet) -> RangeSet:
        """Return those chunks of a set whose whole unit is in the set."""
        return RangeSet(self.whole_units(*span) for span in chunks)

    def next_frame_range(self, start: int, stop: int, frame_chunks: int) -> Range:
        """Return the part of a range that the next frame carries. The part begins at ``start``.

        A range that is too long for one frame is cut at the last boundary between units in the second half of the
        frame. Without such a boundary, the frame has ``frame_chunks`` chunks.

        Args:
            start: the first chunk of the range.
            stop: one past the last chunk of the range.
            frame_chunks: the most chunks in one frame.
        """
        if stop - start <= frame_chunks:
            return Range(start, stop)
        unit = self.unit_at(start + frame_chunks)[0]
        is_in_second_half = unit.start - start >= max(1, frame_chunks // 2)
        return Range(start, unit.start if is_in_second_half else start + frame_chunks)


def _take(views: list[memoryview], byte_count: int) -> list[memoryview]:
    """Remove the first ``byte_count`` bytes from a list of views. Return them as views, without copying."""
    taken = []
    while byte_count:
        view = views[0]
        taken.append(view[:byte_count])
        if byte_count < len(view):
            views[0] = view[byte_count:]
        else:
            del views[0]
        byte_count -= len(taken[-1])
    return taken
