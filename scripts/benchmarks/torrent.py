"""Creates the torrent of one file (BEP 3)."""

from __future__ import annotations

import hashlib
from pathlib import Path

PIECE_BYTES = 1024 * 1024


def bencoded(value: object) -> bytes:
    """Encode a value: an integer, a byte string, text, a list, or a dictionary."""
    match value:
        case int():
            return b"i%de" % value
        case bytes():
            return b"%d:%s" % (len(value), value)
        case str():
            return bencoded(value.encode())
        case list():
            return b"l" + b"".join(map(bencoded, value)) + b"e"
        case dict():
            return b"d" + b"".join(bencoded(key) + bencoded(value[key]) for key in sorted(value)) + b"e"
    raise TypeError(f"{type(value)} has no bencoding")


def torrent_of(file: Path, tracker: str) -> tuple[bytes, str]:
    """Return the torrent of a file, and its info hash in hexadecimal digits.

    Args:
        file: the file.
        tracker: the tracker's URL.
    """
    with file.open("rb") as data:
        pieces = [
            hashlib.sha1(piece, usedforsecurity=False).digest() for piece in iter(lambda: data.read(PIECE_BYTES), b"")
        ]
    info = {
        "name": file.name,
        "length": file.stat().st_size,
        "piece length": PIECE_BYTES,
        "pieces": b"".join(pieces),
    }
    info_hash = hashlib.sha1(bencoded(info), usedforsecurity=False).hexdigest()
    return bencoded({"announce": tracker, "info": info}), info_hash
