"""The entry point of ``pspd``."""

import signal
import sys


def main() -> int:
    """Run ``pspd``; return its exit code. An interrupt during the imports ends it without a traceback."""
    try:
        from pspd.cli.main import main as run

        return run()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
