"""The command that starts this installation's daemon."""

from __future__ import annotations

import sys

DAEMON_COMMAND = (sys.executable, "-P", "-m", "pspd")
"""Runs the daemon of this installation. With ``-P``, Python does not import ``pspd`` from the current folder."""
EXIT_WITH_PARENT = "PSPD_LEASH"
"""With this variable set, a daemon stops at the end of its standard input, and so when its parent process ends."""
CLIENTS_PER_PROCESS_MAX = 1000
"""Clients that one `pspd client` process runs."""
