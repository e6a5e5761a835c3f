"""Chaos: real processes in network namespaces, with faults.

In each round a new network distributes files of random sizes, and folders. Meanwhile clients and the server are killed,
stopped and restarted, hosts are unplugged, datagrams and segments are lost, disks fill up, stored bytes change, and
clients read slowly, join late or leave for good. Then all faults end, and every file must arrive complete and correct
at every remaining client within a time limit. Files whose chunks left with a client are seeded again. The seed
determines the faults, but not the timing of the processes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random

from tests.lab.network import Lab, obstacle
from tests.store.stores import filled_folder, seen_in
from tests.support.daemons import BIN, Daemon, Network
from tests.support.files import random_file, sha256
from tests.support.hosts import Host, kill_group

KIB, MIB = 1024, 1024 * 1024
SIZES = (0, 1, 1024, 100 * KIB, 3 * MIB + 17, 20 * MIB, 60 * MIB)
DISK_MIB = 500
FOLDER_RATE = 0.3
"""The fraction of sources that are folders: they contain a file of the drawn size, and other entries."""
MBITS = (10_000, 20, 50, 100)
"""The bandwidths of a host. The first one has the effect of an unlimited one. Low bandwidths leave time for faults."""
SLOW_MBIT = 1
CLASSIC_BYTES_MAX = 200 * KIB
"""The classic profile moves one chunk per round trip, too slow for large files."""
FAULTS_SECONDS = 25.0
HEALING_SECONDS = 240.0
"""The longest time of the recovery. Leases and timeouts take half a minute."""


class Failed(Exception):
    """A round failed."""


class Round:
    """One network, its files and its faults."""

    def __init__(self, lab: Lab, network: Network, random: Random, faults: Counter[str]) -> None:
        self._lab = lab
        self._network = network
        self._random = random
        self._faults = faults
        self._profile = "classic" if random.random() < 0.15 else "fast"
        self._cache = random.choice(["100KiB", "1MiB", "64MiB"])
        self._mbit = random.choice(MBITS)
        self._hosts: dict[str, Host] = {}
        self._clients: dict[str, Daemon] = {}
        self._sources: list[Path] = []
        self._slow: set[str] = set()
        self._without_copy: dict[str, None] = {}
        self._seeds: list[subprocess.Popen[bytes]] = []
        self._undo: list[tuple[float, Callable[[], None]]] = []
        self._server: Daemon
        self.delivered_bytes = 0

    def run(self) -> None:
        """Cause faults, end them, and check the result.

        Raises:
            Failed: the result is wrong.
        """
        self._start()
        try:
            self._cause_faults()
            self._heal()
            self._check()
        finally:
            for seed in self._seeds:
                kill_group(seed)

    # -- the network

    def _start(self) -> None:
        self._server = self._network.server("--profile", self._profile, "--cache", self._cache)
        hosts = self._lab.hosts[1:]
        for host in self._lab.hosts:
            self._lab.shape(host, self._mbit)
        for index, host in enumerate(hosts):
            name = f"c{index}"
            self._hosts[name] = host
            if index < len(hosts) - 1:  # the last one joins late, or never
                self._clients[name] = self._network.client(name, host=host)
                self._clients[name].expect_end()
        sizes = [size for size in SIZES if self._profile == "fast" or size <= CLASSIC_BYTES_MAX]
        for index in range(self._random.randint(1, 3)):
            size = self._random.choice(sizes)
            source = self._new_source(index, size)
            self._sources.append(source)
            self._seed(source)

    def _new_source(self, index: int, size_bytes: int) -> Path:
        place, seed = self._network.folder, self._random.randrange(2**30)
        if self._random.random() >= FOLDER_RATE:
            return random_file(place / f"f{index}.bin", size_bytes, seed)
        self._faults["(folders)"] += 1
        folder = filled_folder(place / f"d{index}")
        random_file(folder / "random.bin", size_bytes, seed)
        return folder

    def _seed(self, source: Path) -> None:
        command = [BIN / "pspctl", "seed", source, "-q"]
        self._seeds.append(
            self._lab.hosts[0].popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self._network.environment
            )
        )

    def _restart_server(self) -> None:
        if not self._server.alive:
            self._server = self._network.restarted_server(
                self._server, "--profile", self._profile, "--cache", self._cache
            )

    def _restart_client(self, name: str) -> None:
        if name in self._clients and not self._clients[name].alive:
            self._launch(name)

    def _launch(self, name: str) -> None:
        """Start a client; it may exit by itself when there is no server."""
        client = self._clients[name] = self._network.launch_client(name, host=self._hosts[name])
        client.expect_end()

    # -- faults

    def _cause_faults(self) -> None:
        kinds: list[Callable[[str], None]] = [
            self._kill_client,
            self._kill_client,
            self._stop_client,
            self._pause_client,
            self._slow_down,
            self._kill_server,
            self._unplug,
            self._lose_datagrams,
            self._lose_segments,
            self._fill_disk,
            self._change_bytes,
            self._remove_copy,
            self._change_copy,
            self._seed_again,
            self._join_late,
            self._leave_for_good,
        ]
        end = time.monotonic() + FAULTS_SECONDS
        while time.monotonic() < end:
            self._random.choice(kinds)(self._random.choice(list(self._clients)))
            pause = time.monotonic() + self._random.uniform(0.0, 2.0)
            while time.monotonic() < pause:
                self._undo_due()
                time.sleep(0.02)

    def _undo_due(self, *, everything: bool = False) -> None:
        due = [entry for entry in self._undo if everything or entry[0] <= time.monotonic()]
        self._undo = [entry for entry in self._undo if entry not in due]
        for _, undo in due:
            undo()

    def _for_a_while(self, kind: str, at_most_seconds: float, undo: Callable[[], None]) -> None:
        self._faults[kind] += 1
        self._undo.append((time.monotonic() + self._random.uniform(0.1, at_most_seconds), undo))

    def _kill_client(self, name: str) -> None:
        self._clients[name].kill()
        self._for_a_while("client killed", 3.0, lambda: self._restart_client(name))

    def _stop_client(self, name: str) -> None:
        if self._clients[name].alive:
            self._clients[name].signal(signal.SIGTERM)
            self._for_a_while("client stopped", 3.0, lambda: self._restart_client(name))

    def _pause_client(self, name: str) -> None:
        client = self._clients[name]
        if client.alive:
            client.pause()
            self._for_a_while("client paused", 8.0, lambda: client.resume() if client.alive else None)

    def _slow_down(self, name: str) -> None:
        if name not in self._slow:
            self._slow.add(name)
            self._lab.shape(self._hosts[name], SLOW_MBIT)
            self._for_a_while("slow reader", 8.0, lambda: self._speed_up(name))

    def _speed_up(self, name: str) -> None:
        self._slow.discard(name)
        self._lab.shape(self._hosts[name], self._mbit)

    def _kill_server(self, _: str) -> None:
        self._server.kill()
        self._for_a_while("server killed", 3.0, self._restart_server)

    def _unplug(self, name: str) -> None:
        self._lab.partition(self._hosts[name])
        at_most_seconds = 40.0 if self._random.random() < 0.2 else 8.0
        self._for_a_while("host unplugged", at_most_seconds, lambda: self._lab.heal(self._hosts[name]))

    def _lose_datagrams(self, name: str) -> None:
        self._lab.loss(self._hosts[name], self._random.choice([5, 30, 100]))
        self._for_a_while("datagrams lost", 6.0, lambda: self._lab.loss(self._hosts[name], 0))

    def _lose_segments(self, name: str) -> None:
        self._lab.loss(self._hosts[name], self._random.choice([2, 10]), protocol="tcp")
        self._for_a_while("segments lost", 6.0, lambda: self._lab.loss(self._hosts[name], 0, protocol="tcp"))

    def _fill_disk(self, name: str) -> None:
        ballast = self._network.folder / name / ".ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(MIB))
        self._for_a_while("disk full", 4.0, lambda: self._free_disk(name))

    def _free_disk(self, name: str) -> None:
        (self._network.folder / name / ".ballast").unlink(missing_ok=True)

    def _change_bytes(self, name: str) -> None:
        parts = [path for path in (self._network.folder / name / ".psp").glob("*.part") if path.stat().st_size]
        if parts:
            part = self._random.choice(parts)
            with contextlib.suppress(OSError), part.open("r+b") as file:
                file.seek(self._random.randrange(part.stat().st_size))
                file.write(b"\x55")
                self._faults["bytes changed"] += 1

    def _remove_copy(self, name: str) -> None:
        """Remove a finished copy; the client is restarted at the end, and gets the file again."""
        copies = self._copies(name)
        if copies:
            remove(self._random.choice(copies))
            self._without_copy[name] = None
            self._faults["copy removed"] += 1

    def _change_copy(self, name: str) -> None:
        """Change a finished copy, and remove it later."""
        copies = [copy for copy in self._copies(name) if copy.is_file() and copy.stat().st_size]
        if copies:
            copy = self._random.choice(copies)
            with contextlib.suppress(OSError), copy.open("r+b") as file:
                file.seek(self._random.randrange(copy.stat().st_size))
                file.write(b"\x55")
            self._without_copy[name] = None
            self._for_a_while("copy changed", 8.0, lambda: remove(copy))

    def _copies(self, name: str) -> list[Path]:
        copies = [self._network.copy(name, source.name) for source in self._sources]
        return [copy for copy in copies if copy.exists()]

    def _seed_again(self, _: str) -> None:
        self._seed(self._random.choice(self._sources))
        self._faults["seeded again"] += 1

    def _join_late(self, _: str) -> None:
        late = [name for name in self._hosts if name not in self._clients]
        if late and len(self._clients) == len(self._hosts) - 1:
            self._launch(late[0])
            self._faults["client came late"] += 1

    def _leave_for_good(self, name: str) -> None:
        if len(self._clients) == len(self._hosts) and self._random.random() < 0.3:
            client = self._clients.pop(name)
            if client.alive:
                client.resume()
                client.signal(signal.SIGTERM)
            self._faults["client left for good"] += 1

    # -- recovery

    def _heal(self) -> None:
        self._undo_due(everything=True)
        self._restart_server()
        for name in self._without_copy:
            if name in self._clients:
                self._clients[name].kill()
        for name in self._clients:
            self._restart_client(name)

    def _check(self) -> None:
        deadline = time.monotonic() + HEALING_SECONDS
        while not_done := self._not_done():
            if time.monotonic() > deadline:
                raise Failed(f"not within {HEALING_SECONDS:.0f} s: {'; '.join(not_done)}")
            self._repair()
            time.sleep(0.5)
        for source in self._sources:
            copies = {name: self._network.copy(name, source.name) for name in self._clients}
            wrong = [name for name, copy in copies.items() if content_of(copy) != content_of(source)]
            if wrong:
                raise Failed(f"{source.name} is wrong at {wrong}")
        for log in self._network.folder.glob("*.log"):
            text = log.read_text(errors="replace")
            if "Traceback" in text or "this is a bug" in text:
                raise Failed(f"{log.name} has a stack trace")

    def _not_done(self) -> list[str]:
        """Return what is not done; restart clients that exited because there was no server."""
        self._restart_server()
        found = []
        for name, client in self._clients.items():
            if not client.alive:
                self._restart_client(name)
                found.append(f"{name} has ended")
        status = self._network.status()
        files = {file["name"]: file for file in status["files"]}
        for source in self._sources:
            file = files.get(source.name)
            missing = [name for name in self._clients if not self._network.copy(name, source.name).exists()]
            if file is None or file["state"] != "complete" or missing:
                found.append(f"{source.name} is {file['state'] if file else 'unknown'}, missing at {missing}")
        if not found:
            self.delivered_bytes = sum(file["traffic"]["delivered_bytes"] for file in status["files"])
        return found

    def _repair(self) -> None:
        """Seed the stalled and unknown files again, unless a source still runs."""
        if any(seed.poll() is None for seed in self._seeds):
            return
        files = {file["name"]: file["state"] for file in self._network.status()["files"]}
        for source in self._sources:
            if files.get(source.name) in (None, "stalled"):
                self._faults["repaired"] += 1
                self._seed(source)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def content_of(path: Path) -> object:
    """Return a value that is equal for equal files, or equal folders, only."""
    return seen_in(path) if path.is_dir() else sha256(path)


@contextmanager
def disks(folder: Path, names: list[str]) -> Iterator[None]:
    """Mount a small disk for each client, so that it can fill up.

    Args:
        folder: the folder that gets a subfolder for each client.
        names: the names of the clients.
    """
    with ExitStack() as stack:
        for name in names:
            path = folder / name
            path.mkdir(parents=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "psp-chaos", path], check=True)
            stack.callback(subprocess.run, ["umount", "-l", path], check=True)
        yield


def run_round(seed: int, faults: Counter[str]) -> int:
    """Run one round; return how many bytes were delivered.

    Args:
        seed: the seed of the round.
        faults: the number of faults of each kind; the round adds its faults.

    Raises:
        Failed: the result is wrong. The message contains the ends of all logs.
    """
    random = Random(seed)
    host_count = random.randint(4, 7)
    output = io.StringIO()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "network"
        names = [f"c{index}" for index in range(host_count - 1)]
        with disks(folder, names), Lab(host_count) as lab:
            try:
                with contextlib.redirect_stdout(output), Network(folder, lab.hosts[0]) as network:
                    round_ = Round(lab, network, random, faults)
                    round_.run()
            except (Failed, AssertionError, subprocess.SubprocessError) as error:
                raise Failed(f"{error}\n{output.getvalue()}") from error
    return round_.delivered_bytes


def main() -> int:
    """Run rounds until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="number of minutes  [default: 5]")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first round; each round adds 1  [default: 1]")
    arguments = parser.parse_args()
    if reason := obstacle():
        print(f"chaos: {reason}", file=sys.stderr)
        return 1
    faults: Counter[str] = Counter()
    seed, rounds, delivered_bytes, failed = arguments.seed, 0, 0, []
    begun = time.monotonic()
    while time.monotonic() - begun < arguments.minutes * 60:
        started = time.monotonic()
        try:
            delivered_bytes += run_round(seed, faults)
            result = "ok"
        except Failed as error:
            failed.append(seed)
            result = f"FAILED\n{error}"
        rounds += 1
        print(f"round {seed}: {time.monotonic() - started:.0f} s: {result}", flush=True)
        seed += 1
    minutes = (time.monotonic() - begun) / 60
    summary = {
        "rounds": rounds,
        "minutes": round(minutes, 1),
        "delivered_mib": delivered_bytes // MIB,
        "failed": failed,
        "faults": dict(faults.most_common()),
    }
    print(json.dumps(summary))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
