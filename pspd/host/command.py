"""Constants for starting the daemons of this installation."""

from __future__ import annotations

import sys

DAEMON_COMMAND = (sys.executable, "-P", "-m", "pspd")
"""The command of this installation's daemons. With ``-P``, Python does not import ``pspd`` from the current folder."""
STOP_ON_STDIN_EOF = "PSPD_STOP_ON_STDIN_EOF"
"""The environment variable that makes a daemon stop when its standard input ends, for example with its parent."""
CLIENTS_PER_PROCESS_MAX = 1000
"""The most clients that one `pspd client` process runs."""
