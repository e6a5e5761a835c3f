"""The names in a client's hidden folder, ``.psp``: three fixed names, and ``<file_id>.<suffix>`` for parts of files.

During an atomic replacement, the new content is in a file whose name ends with ``.tmp``.
"""

from __future__ import annotations

LOCK = "lock"
"""A file with the id of the process that uses the folder; this process keeps the file locked."""
INSTANCE = "instance"
"""A file with the 16 random bytes that identify the folder's client."""
BOOT = "boot"
"""A file with the id of the boot in which the journals can be trusted."""

MANIFEST = "manifest"
"""Suffix of a file's manifest."""
PARTIAL = "part"
"""Suffix of the sparse file with an unfinished file's bytes."""
JOURNAL = "held"
"""Suffix of the journal of an unfinished file's verified ranges."""
COMPLETION = "done"
"""Suffix of a finished file's completion record."""
ARCHIVE = "tar"
"""Suffix of a finished folder's archive, which is sent to other clients."""
UNPACKED = "unpacked"
"""Suffix of a folder that is unpacked, but does not have its own name yet."""
UNPACKING = "unpacking"
"""Suffix of a folder that is being unpacked; a hyphen and random hexadecimal digits follow."""
