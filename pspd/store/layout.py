"""The names in a client's hidden folder, ``.psp``: three fixed names, and names ``<file_id>.<suffix>``.

While a file is replaced atomically, its new content is in a file with the additional suffix ``.tmp``.
"""

from __future__ import annotations

LOCK = "lock"
"""The file that the client's process keeps locked. It contains the id of this process."""
INSTANCE = "instance"
"""The file with the 16 random bytes that identify the folder's client."""
BOOT = "boot"
"""The file with the id of the boot of the machine in which the journals can be trusted."""

MANIFEST = "manifest"
"""Suffix of a file's manifest."""
PARTIAL = "part"
"""Suffix of the partial file: the bytes of an unfinished file."""
JOURNAL = "held"
"""Suffix of the journal of an unfinished file's verified ranges."""
COMPLETION = "done"
"""Suffix of a finished file's completion record."""
ARCHIVE = "tar"
"""Suffix of a finished folder's archive, which is sent to other clients."""
UNPACKED = "unpacked"
"""Suffix of a folder that is unpacked, but does not have its own name yet."""
UNPACKING = "unpacking"
"""Suffix of a folder while it is unpacked; a hyphen and random hexadecimal digits follow."""
