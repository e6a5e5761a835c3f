"""The encoding of file names: UTF-8 on every machine, in any locale."""

from __future__ import annotations

import locale
import os
import sys


def ensure_utf8() -> None:
    """Restart the process in Python's UTF-8 mode if its locale uses another encoding.

    Call this function first: a restart replaces the running program. The process id stays the same. Names are sent
    as UTF-8 and are the same bytes on every disk, but in a Latin-1 locale Python cannot open a file with a Japanese
    name. The standard streams keep the encoding of the locale, or the one in ``PYTHONIOENCODING``.
    """
    if sys.getfilesystemencoding() == "utf-8" or "utf8" in sys._xoptions or not sys.executable:
        return
    os.environ.setdefault("PYTHONIOENCODING", locale.getencoding())
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
