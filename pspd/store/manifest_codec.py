"""The encoding of a manifest on disk.

Integers are big-endian. The fields, in this order:

- the magic (8 bytes): one for a folder, one for a file with the usual mode, one for a file with another mode;
- the size in bytes (u64) and the share count (u32);
- the lengths in bytes (u32 each) of the name, the block digests and the cut digests;
- the mode (u16), only if the magic is that of a file with another mode;
- the name (UTF-8), the block digests and the cut digests;
- the CRC-32 (u32) of all preceding bytes.
"""

from __future__ import annotations

import struct
import zlib

from pspd.core.model.manifest import DEFAULT_MODE, DigestFunction, Manifest

_MAGIC = b"pspmani1"
_MODE_MAGIC = b"pspmani2"
_FOLDER_MAGIC = b"pspfold1"
_HEADER = struct.Struct(">8sQIIII")
_MODE = struct.Struct(">H")
_CHECKSUM = struct.Struct(">I")


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the encoding of a manifest."""
    name = manifest.name.encode("utf-8")
    blocks, cuts = manifest.block_digests, manifest.cut_digests
    sizes = len(name), len(blocks), len(cuts)
    has_mode = manifest.mode != DEFAULT_MODE
    magic = _FOLDER_MAGIC if manifest.is_folder else _MODE_MAGIC if has_mode else _MAGIC
    header = _HEADER.pack(magic, manifest.size_bytes, manifest.share_count, *sizes)
    mode = _MODE.pack(manifest.mode) if has_mode else b""
    record = b"".join((header, mode, name, blocks, cuts))
    return record + _CHECKSUM.pack(zlib.crc32(record))


def decode_manifest(record: bytes, digest: DigestFunction) -> Manifest:
    """Return the manifest in a record.

    Args:
        record: the output of :func:`encode_manifest`, as read from the disk.
        digest: the digest function of manifests.

    Raises:
        ValueError: the record is torn or has another format.
        PspError: the fields of the record do not form a valid manifest.
    """
    body, checksum = record[: -_CHECKSUM.size], record[-_CHECKSUM.size :]
    if len(body) < _HEADER.size or checksum != _CHECKSUM.pack(zlib.crc32(body)):
        raise ValueError("wrong checksum: the record is torn or has another format")
    magic, size_bytes, share_count, name_bytes, blocks_bytes, cuts_bytes = _HEADER.unpack_from(body)
    name_start = _HEADER.size + (_MODE.size if magic == _MODE_MAGIC else 0)
    blocks_start = name_start + name_bytes
    cuts_start = blocks_start + blocks_bytes
    if magic not in (_MAGIC, _MODE_MAGIC, _FOLDER_MAGIC) or cuts_start + cuts_bytes != len(body):
        raise ValueError("the record has another format")
    name = body[name_start:blocks_start].decode("utf-8")
    blocks, cuts = body[blocks_start:cuts_start], body[cuts_start:]
    mode = _MODE.unpack_from(body, _HEADER.size)[0] if magic == _MODE_MAGIC else DEFAULT_MODE
    is_folder = magic == _FOLDER_MAGIC
    return Manifest.parse(name, size_bytes, blocks, digest, share_count, cuts, is_folder=is_folder, mode=mode)
