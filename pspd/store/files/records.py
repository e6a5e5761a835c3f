"""A store's records about its files: their manifests, and that they were finished."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pspd.core.model.manifest import Digest, FileId, Manifest
from pspd.errors import StorageError
from pspd.store.filesystem.files import remove_file, replace_file
from pspd.store.layout import BOOT, COMPLETION, MANIFEST
from pspd.store.manifest_codec import decode_manifest, encode_manifest

ON_DISK = ""
"""Replaces the boot in a completion record when the file is flushed: it survives any crash of the machine."""
UNVERIFIED = "unverified"
"""Replaces the boot in a completion record when the file must be verified before it is used."""
TORN = "torn"
"""Replaces the boot in a completion record that is torn, or whose file the disk has damaged."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CompletionRecord:
    """That a file was finished, and how to recognize it without reading it.

    Attributes:
        name: the file's name in the client's folder.
        size_bytes: its size.
        mtime_ns: its modification time.
        boot_id: the boot in which it was finished, or ``ON_DISK``, ``UNVERIFIED`` or ``TORN``.
    """

    name: str
    size_bytes: int
    mtime_ns: int
    boot_id: str

    def encode(self) -> bytes:
        """Return the record as JSON."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def decode(record: bytes) -> CompletionRecord:
        """Return the record in JSON that :meth:`encode` made.

        Raises:
            ValueError: it has another format.
        """
        match json.loads(record):
            case {
                "name": str(name),
                "size_bytes": int(size_bytes),
                "mtime_ns": int(mtime_ns),
                "boot_id": str(boot_id),
            }:
                return CompletionRecord(name, size_bytes, mtime_ns, boot_id)
        raise ValueError("the record has another format")

    def may_be_lost(self, boot: str) -> bool:
        """Return whether the machine may have crashed before the file was on the disk; ``boot`` is the present one."""
        return self.boot_id not in (ON_DISK, UNVERIFIED, boot)


class Records:
    """The records in a client's hidden folder.

    Args:
        work: the hidden folder.
        digest: the digest function of manifests.
    """

    def __init__(self, work: Path, digest: Digest) -> None:
        self._work = work
        self._digest = digest

    def path(self, file_id: FileId, suffix: str) -> Path:
        """Return where the hidden folder keeps something of a file.

        Args:
            file_id: the file.
            suffix: one of those in ``pspd.store.layout``.
        """
        return self._work / f"{file_id.hex()}.{suffix}"

    def manifests(self) -> Iterator[Manifest]:
        """Yield every saved manifest; log a warning for each that cannot be read."""
        for path in sorted(self._work.glob(f"*.{MANIFEST}")):
            try:
                manifest = decode_manifest(path.read_bytes(), self._digest)
                if manifest.file_id.hex() != path.stem:
                    raise ValueError("the manifest of another file")
            except Exception as error:  # any error concerns this file alone
                _LOG.warning("ignoring %s: %s", path, error)
            else:
                yield manifest

    def save_manifest(self, manifest: Manifest) -> None:
        """Save a manifest; replace an earlier one of the same file.

        Raises:
            StorageError: it cannot be saved.
        """
        replace_file(self.path(manifest.file_id, MANIFEST), encode_manifest(manifest))

    def completion(self, file_id: FileId) -> CompletionRecord | None:
        """Return the completion record of a file, or None. A torn record still says that the file was finished."""
        path = self.path(file_id, COMPLETION)
        try:
            return CompletionRecord.decode(path.read_bytes())
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            _LOG.warning("%s is torn: %s", path, error)
            return CompletionRecord("", size_bytes=0, mtime_ns=0, boot_id=TORN)
        except OSError as error:
            _LOG.warning("ignoring %s: %s", path, error)
            return None

    def completed_at(self, file_id: FileId) -> int:
        """Return when a completion record was written, in nanoseconds of file time; 0 if there is none."""
        try:
            return self.path(file_id, COMPLETION).stat().st_mtime_ns
        except OSError:
            return 0

    def save_completion(self, file_id: FileId, record: CompletionRecord) -> None:
        """Save a completion record; replace an earlier one.

        Args:
            file_id: the file.
            record: its record.

        Raises:
            StorageError: it cannot be saved.
        """
        replace_file(self.path(file_id, COMPLETION), record.encode())

    def distrust(self, manifest: Manifest, boot_id: str) -> CompletionRecord:
        """Record that a finished file must be verified, and return the record. Call this before anything can fail.

        Args:
            manifest: the file's manifest.
            boot_id: ``UNVERIFIED``, or ``TORN`` if the disk has damaged the file.

        Raises:
            StorageError: the record cannot be saved. It is then removed, and the file counts as the user's.
        """
        record = CompletionRecord(manifest.name, size_bytes=0, mtime_ns=0, boot_id=boot_id)
        try:
            self.save_completion(manifest.file_id, record)
        except StorageError:
            self.remove(manifest.file_id, COMPLETION)
            raise
        return record

    def remove(self, file_id: FileId, *suffixes: str) -> None:
        """Remove what the hidden folder keeps of a file under some suffixes.

        Args:
            file_id: the file.
            suffixes: of ``pspd.store.layout``.

        Raises:
            StorageError: something cannot be removed.
        """
        for suffix in suffixes:
            remove_file(self.path(file_id, suffix))

    def remove_strays(self, suffix: str, file_ids: Collection[FileId]) -> None:
        """Remove everything with a suffix, except that of some files.

        Args:
            suffix: one of those in ``pspd.store.layout``.
            file_ids: the files to keep.

        Raises:
            StorageError: something cannot be removed.
        """
        kept = {file_id.hex() for file_id in file_ids}
        for path in self._work.glob(f"*.{suffix}"):
            if path.stem not in kept:
                remove_file(path)

    def boot(self) -> str:
        """Return the boot within which the journals can be trusted; empty if unknown."""
        try:
            return (self._work / BOOT).read_text("ascii")
        except (OSError, ValueError):
            return ""

    def save_boot(self, boot: str) -> None:
        """Record the boot within which the journals can be trusted.

        Raises:
            StorageError: it cannot be saved.
        """
        replace_file(self._work / BOOT, boot.encode())
