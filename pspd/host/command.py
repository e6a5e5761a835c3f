"""How a program starts this installation's daemon."""

from __future__ import annotations

import sys

DAEMON_COMMAND = (sys.executable, "-P", "-m", "pspd")
"""Runs the daemon of this installation. ``-P`` keeps a ``pspd`` folder in the current folder from replacing it."""
EXIT_WITH_PARENT = "PSPD_LEASH"
"""With this variable set, a daemon stops when its standard input ends: when its parent ends, however that happens."""
CLIENTS_PER_PROCESS_MAX = 1000
"""Clients that one `pspd client` process runs."""
