"""``python -m pspd``."""

import sys

from pspd.cli import main

sys.exit(main())
