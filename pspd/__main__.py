"""The entry point of ``python -m pspd``."""

import sys

from pspd.cli.main import main

sys.exit(main())
