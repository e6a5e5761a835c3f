"""The digest of blocks, pieces and manifests: BLAKE3, 32 bytes."""

from __future__ import annotations

from collections.abc import Iterable

from blake3 import blake3


def blake3_digest(parts: Iterable[bytes | bytearray | memoryview]) -> bytes:
    """Return the BLAKE3 digest (32 bytes) of the concatenated parts.

    This function is a ``pspd.core.model.manifest.DigestFunction``.
    """
    if isinstance(parts, tuple) and len(parts) == 1:
        # Nearly every call has one part. Hashing the part directly saves a second call into the library.
        return blake3(parts[0]).digest()
    digester = blake3()
    for part in parts:
        digester.update(part)
    return digester.digest()
