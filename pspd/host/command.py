"""How this installation's daemon is started."""

from __future__ import annotations

import sys

DAEMON_COMMAND = (sys.executable, "-P", "-m", "pspd")
"""The daemon of this very installation: -P, so that nothing of the same name in the current folder is taken for it."""
