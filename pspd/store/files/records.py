"""What a store writes down about a file: its manifest, and that it was finished.

A manifest's record is, big-endian: magic (8 bytes, another for a folder's, and for one with a mode), size in bytes
(u64), share count (u32), the lengths (u32 each) of what follows, the mode (u16) if it is not the usual one, then name,
block digests and cut digests, and the CRC-32 (u32) of it all.
A mark is one JSON object.
"""

from __future__ import annotations

import json
import logging
import struct
import zlib
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pspd.core.model.manifest import USUAL_MODE, Digest, FileId, Manifest
from pspd.errors import StorageError
from pspd.store.files.atomic import remove_file, replace_file

ON_DISK = ""
"""Stands for the boot in a mark once the bytes are known to be on the disk, whatever happens to the machine."""
UNVERIFIED = "unverified"
"""Stands for the boot in a mark while nothing is known of the bytes: they are verified when next read."""
TORN = "torn"
"""Stands for the boot in a mark that cannot be read."""

_LOG = logging.getLogger(__name__)

_MAGIC = b"pspmani1"
_MODE_MAGIC = b"pspmani2"
_FOLDER_MAGIC = b"pspfold1"
_HEADER = struct.Struct(">8sQIIII")
_MODE = struct.Struct(">H")
_CHECKSUM = struct.Struct(">I")


def encode_manifest(manifest: Manifest) -> bytes:
    """The record of a manifest."""
    name = manifest.name.encode("utf-8")
    blocks, cuts = manifest.block_digests, manifest.cut_digests
    sizes = len(name), len(blocks), len(cuts)
    has_mode = manifest.mode != USUAL_MODE
    magic = _FOLDER_MAGIC if manifest.is_folder else _MODE_MAGIC if has_mode else _MAGIC
    header = _HEADER.pack(magic, manifest.size_bytes, manifest.share_count, *sizes)
    mode = _MODE.pack(manifest.mode) if has_mode else b""
    record = b"".join((header, mode, name, blocks, cuts))
    return record + _CHECKSUM.pack(zlib.crc32(record))


def decode_manifest(record: bytes, digest: Digest) -> Manifest:
    """The manifest of a record.

    Raises:
        ValueError: it is not one that :func:`encode_manifest` made.
        PspError: its parts do not fit together.
    """
    body, checksum = record[: -_CHECKSUM.size], record[-_CHECKSUM.size :]
    if len(body) < _HEADER.size or checksum != _CHECKSUM.pack(zlib.crc32(body)):
        raise ValueError("a torn or foreign record")
    magic, size_bytes, share_count, name_bytes, blocks_bytes, cuts_bytes = _HEADER.unpack_from(body)
    name_start = _HEADER.size + (_MODE.size if magic == _MODE_MAGIC else 0)
    blocks_start = name_start + name_bytes
    cuts_start = blocks_start + blocks_bytes
    if magic not in (_MAGIC, _MODE_MAGIC, _FOLDER_MAGIC) or cuts_start + cuts_bytes != len(body):
        raise ValueError("a foreign record")
    name = body[name_start:blocks_start].decode("utf-8")
    blocks, cuts = body[blocks_start:cuts_start], body[cuts_start:]
    mode = _MODE.unpack_from(body, _HEADER.size)[0] if magic == _MODE_MAGIC else USUAL_MODE
    is_folder = magic == _FOLDER_MAGIC
    return Manifest.parse(name, size_bytes, blocks, digest, share_count, cuts, is_folder=is_folder, mode=mode)


@dataclass(frozen=True, slots=True)
class Mark:
    """That a file was finished, and by what to know it again without reading it.

    Attributes:
        name: the file's name in the client's folder.
        size_bytes: its size.
        mtime_ns: when it was last changed.
        boot_id: the boot within which it was written, or ``ON_DISK``, or ``UNVERIFIED``.
    """

    name: str
    size_bytes: int
    mtime_ns: int
    boot_id: str

    def encode(self) -> bytes:
        """The mark's record."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def decode(record: bytes) -> Mark:
        """The mark of a record.

        Raises:
            ValueError: it is not one that :meth:`encode` made.
        """
        match json.loads(record):
            case {
                "name": str(name),
                "size_bytes": int(size_bytes),
                "mtime_ns": int(mtime_ns),
                "boot_id": str(boot_id),
            }:
                return Mark(name, size_bytes, mtime_ns, boot_id)
        raise ValueError("a foreign record")


class Records:
    """The records of a store's files, in its hidden folder."""

    def __init__(self, work: Path, digest: Digest) -> None:
        self._work = work
        self._digest = digest

    def path(self, file_id: FileId, suffix: str) -> Path:
        """Where something of a file is kept: its ``manifest``, ``part``, ``held``, ``done``, or what a folder needs."""
        return self._work / f"{file_id.hex()}.{suffix}"

    def manifests(self) -> Iterator[Manifest]:
        """Every saved manifest; what cannot be read is left out, with a warning."""
        for path in sorted(self._work.glob("*.manifest")):
            try:
                manifest = decode_manifest(path.read_bytes(), self._digest)
                if manifest.file_id.hex() != path.stem:
                    raise ValueError("the record of another file")
            except Exception as error:  # whatever it is, it is this file's
                _LOG.warning("%s is ignored: %s", path, error)
            else:
                yield manifest

    def save_manifest(self, manifest: Manifest) -> None:
        """Saves a manifest, in place of the one of before.

        Raises:
            StorageError: it cannot be saved.
        """
        replace_file(self.path(manifest.file_id, "manifest"), encode_manifest(manifest))

    def mark(self, file_id: FileId) -> Mark | None:
        """The mark of a finished file; None if there is none. One that is torn says only that the file was finished."""
        path = self.path(file_id, "done")
        try:
            return Mark.decode(path.read_bytes())
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            _LOG.warning("%s is torn: %s", path, error)
            return Mark("", size_bytes=0, mtime_ns=0, boot_id=TORN)
        except OSError as error:
            _LOG.warning("%s is ignored: %s", path, error)
            return None

    def marked_at(self, file_id: FileId) -> int:
        """When a file's mark was written, in nanoseconds as files tell it; 0 if there is none."""
        try:
            return self.path(file_id, "done").stat().st_mtime_ns
        except OSError:
            return 0

    def save_mark(self, file_id: FileId, mark: Mark) -> None:
        """Marks a file as finished, in place of its mark of before.

        Raises:
            StorageError: the mark cannot be saved.
        """
        replace_file(self.path(file_id, "done"), mark.encode())

    def distrust(self, manifest: Manifest, boot_id: str) -> Mark:
        """Notes that nothing is known of a finished file's bytes; the next start reads them. Returns the mark.

        To be called before anything is done about such a file that can fail.

        Args:
            manifest: the file's.
            boot_id: ``UNVERIFIED``, or ``TORN`` where what is wrong with the bytes is the disk's doing.

        Raises:
            StorageError: the mark cannot be saved. It is removed then: without one, a file counts as somebody else's.
        """
        mark = Mark(manifest.name, size_bytes=0, mtime_ns=0, boot_id=boot_id)
        try:
            self.save_mark(manifest.file_id, mark)
        except StorageError:
            self.remove(manifest.file_id, "done")
            raise
        return mark

    def remove(self, file_id: FileId, *suffixes: str) -> None:
        """Removes what is kept of a file under these suffixes, as far as it is there.

        Raises:
            StorageError: something cannot be removed.
        """
        for suffix in suffixes:
            remove_file(self.path(file_id, suffix))

    def remove_strays(self, suffix: str, file_ids: Collection[FileId]) -> None:
        """Removes what is kept under a suffix of any other file than these.

        Raises:
            StorageError: something cannot be removed.
        """
        kept = {file_id.hex() for file_id in file_ids}
        for path in self._work.glob(f"*.{suffix}"):
            if path.stem not in kept:
                remove_file(path)

    def boot(self) -> str:
        """The boot within which all that is recorded of saved bytes is true; empty if that is not known."""
        try:
            return (self._work / "boot").read_text("ascii")
        except (OSError, ValueError):
            return ""

    def save_boot(self, boot: str) -> None:
        """Notes that all that is recorded of saved bytes is true within this boot.

        Raises:
            StorageError: it cannot be saved.
        """
        replace_file(self._work / "boot", boot.encode())
