"""Constants for starting the daemons of this installation."""

from __future__ import annotations

import sys

DAEMON_COMMAND = (sys.executable, "-P", "-m", "pspd")
"""The command of this installation's daemons. With ``-P``, Python does not import ``pspd`` from the current folder."""
EXIT_WITH_PARENT = "PSPD_LEASH"
"""If this environment variable is set, a daemon stops when its standard input ends, for example with its parent."""
CLIENTS_PER_PROCESS_MAX = 1000
"""The most clients that one `pspd client` process runs."""
