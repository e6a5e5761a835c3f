"""The digest of blocks and manifests: BLAKE3, 32 bytes."""

from __future__ import annotations

from collections.abc import Iterable

from blake3 import blake3


def blake3_digest(parts: Iterable[bytes | bytearray | memoryview]) -> bytes:
    """The BLAKE3 digest (32 bytes) of the concatenated parts; a ``pspd.core.model.manifest.Digest``."""
    if isinstance(parts, tuple) and len(parts) == 1:
        # Nearly every call is one block: no second call into the library for it.
        return blake3(parts[0]).digest()
    digester = blake3()
    for part in parts:
        digester.update(part)
    return digester.digest()
