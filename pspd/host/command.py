"""How this installation's daemon is started."""

from __future__ import annotations

import sys

DAEMON_COMMAND = (sys.executable, "-P", "-m", "pspd")
"""Runs the daemon of this installation. ``-P`` keeps a ``pspd`` folder in the current folder from replacing it."""
