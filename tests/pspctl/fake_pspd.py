"""Stands for ``pspd`` in the tests of ``pspctl run``: says that it is ready, then waits for its end.

FAKE_LISTEN is where the fake server of the test listens. FAKE_CONTENT is a file that each client finds in
its folder at once, and FAKE_FAULT what goes wrong: ``server-dies``, ``client-dies``, ``mute`` or ``corrupt``.
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
