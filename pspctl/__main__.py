"""The entry point of ``pspctl``."""

import signal
import sys


def main() -> None:
    """Run ``pspctl``, and exit. An interrupt during the imports ends it without a traceback."""
    try:
        from pspctl.main import main as run

        run()
    except KeyboardInterrupt:
        print("pspctl: error: interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
