"""A fake ``pspd`` for the tests of ``pspctl run``: writes its ready line, then waits for its end.

FAKE_LISTEN is the address of the test's fake server, and FAKE_CONTENT a file that each client copies to its folder.
FAKE_FAULT is the fault: ``server-dies``, ``client-dies``, ``mute`` or ``corrupt``.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role")
    for option in ("listen", "state-dir", "server", "dir", "name", "profile", "cache"):
        parser.add_argument(f"--{option}")
    for option in ("data-port", "count", "first-index"):
        parser.add_argument(f"--{option}", type=int)
    arguments = parser.parse_args()
    fault = os.environ.get("FAKE_FAULT", "")
    if fault == f"{arguments.role}-dies":
        sys.exit("first line\nthe disk is on fire\n")
    ready = {"ready": True, "role": arguments.role, "pid": os.getpid()}
    if arguments.role == "server":
        ready |= {"listen": os.environ["FAKE_LISTEN"], "data_port": 1}
    else:
        ready |= {"names": [make_copy(arguments, index, fault) for index in range(arguments.count)]}
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    if fault != "mute":
        print(json.dumps(ready), flush=True)
    signal.sigwait({signal.SIGTERM})
    with open(os.environ["FAKE_ENDS"], "a") as ends:
        print(arguments.role, arguments.profile, arguments.cache, file=ends)


def make_copy(arguments: argparse.Namespace, index: int, fault: str) -> str:
    name = f"{arguments.name}-{arguments.first_index + index}"
    folder = Path(arguments.dir) / name
    (folder / ".psp").mkdir(parents=True)
    content = Path(os.environ["FAKE_CONTENT"])
    spoiled = fault == "corrupt" and name.endswith("-1")
    (folder / content.name).write_bytes(content.read_bytes() + b"!" * spoiled)
    return name


if __name__ == "__main__":
    main()
