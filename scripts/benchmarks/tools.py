"""The tools that are compared, each configured for speed.

The function of a tool runs it once in a testbed, and returns seconds by name: ``whole`` is the time from the command to
the last copy, with servers already running.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scripts.benchmarks.testbed import DONE_SECONDS, Testbed
from scripts.benchmarks.torrent import torrent_of
from tests.support.daemons import BIN, Network
from tests.support.hosts import Host

HTTP_PORT, TRACKER_PORT, RSYNC_PORT, SWARM_PORT = 8080, 6969, 8730, 6881
MULTICAST_GROUP = "239.77.0.1"

Seconds = dict[str, float]


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that distributes a file.

    Attributes:
        name: the name in tables.
        run: the function that runs the tool once.
        needs: the programs and Python modules that the tool requires.
        set_up: the configuration of the tool, for the page.
        on_loopback: whether the tool works with all clients on one host.
    """

    name: str
    run: Callable[[Testbed], Seconds]
    needs: tuple[str, ...]
    set_up: str
    on_loopback: bool = True

    @property
    def missing(self) -> list[str]:
        """The programs and modules that the tool requires and that are not installed."""
        return [need for need in self.needs if not shutil.which(need) and not importlib.util.find_spec(need)]


def psp_running(bed: Testbed) -> Seconds:
    """Run ``pspctl seed --wait`` with the server and all clients running."""
    with Network(bed.folder, bed.server) as network:
        _start_psp(bed, network)
        return _seed(bed, network)


def psp_cold(bed: Testbed) -> Seconds:
    """Start the server and all clients, then run ``pspctl seed --wait``."""
    begun = bed.warm()
    with Network(bed.folder, bed.server) as network:
        _start_psp(bed, network)
        seconds = _seed(bed, network)
    return {"whole": time.monotonic() - begun, "exchange": seconds["exchange"]}


def _start_psp(bed: Testbed, network: Network) -> None:
    network.server()
    joins = ("client", "--server", network.address)
    started = [
        bed.start(host, BIN / "pspd", *joins, "--dir", bed.folder / f"c{index}", "--name", f"c{index}")
        for index, host in enumerate(bed.clients)
    ]
    bed.until("all clients have joined", lambda: len(network.status()["clients"]) == len(started))


def _seed(bed: Testbed, network: Network) -> Seconds:
    command = [BIN / "pspctl", "seed", bed.file, "--clients", len(bed.clients), "--wait", "-o", "json"]
    begun = bed.warm()
    done = bed.source.run(command, timeout=DONE_SECONDS, env=network.environment)
    ended = time.monotonic()
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    result = json.loads(done.stdout)
    traffic, size = result["file"]["traffic"], result["file"]["size_bytes"]
    contributed = traffic["contributed_bytes"] - traffic["seeding_contributed_bytes"]
    return {
        "whole": ended - begun,
        "exchange": result["seconds"]["exchange"],
        "contributed": contributed / size,
        "duplicate": traffic["duplicate_bytes"] / size,
    }


def nginx_curl(bed: Testbed) -> Seconds:
    """Run nginx with sendfile, and curl at each client."""
    config = bed.folder / "nginx.conf"
    config.write_text(
        f"""daemon off; user root; worker_processes auto; pid {bed.folder}/nginx.pid; error_log stderr;
        events {{ worker_connections 1024; }}
        http {{ access_log off; sendfile on; tcp_nopush on;
          server {{ listen {bed.server.address}:{HTTP_PORT}; root {bed.file.parent}; }} }}"""
    )
    bed.start(bed.server, "nginx", "-p", bed.folder, "-c", config)
    bed.until_answers(bed.server, HTTP_PORT)
    url = f"http://{bed.server.address}:{HTTP_PORT}/{bed.file.name}"
    return _all_at_once(bed, lambda host, copy: ("curl", "-sSf", "-o", copy, url))


def rsync(bed: Testbed) -> Seconds:
    """Run an rsync daemon, and rsync of whole files at each client."""
    config = bed.folder / "rsyncd.conf"
    config.write_text(
        f"use chroot = no\nport = {RSYNC_PORT}\naddress = {bed.server.address}\nuid = 0\ngid = 0\n"
        f"[files]\npath = {bed.file.parent}\nread only = yes\nexclude = /run\n"
    )
    bed.start(bed.server, "rsync", "--daemon", "--no-detach", "--config", config)
    bed.until_answers(bed.server, RSYNC_PORT)
    url = f"rsync://{bed.server.address}:{RSYNC_PORT}/files/{bed.file.name}"
    return _all_at_once(bed, lambda host, copy: ("rsync", "--whole-file", "--inplace", url, copy))


def aria2(bed: Testbed) -> Seconds:
    """Run a swarm of aria2 with opentracker and local peer discovery; all seed until the last is done."""
    torrent = _tracked_torrent(bed)
    hook = bed.folder / "done"
    hook.write_text('#!/bin/sh\ntouch "$3.done"\n')
    hook.chmod(0o755)
    common = (
        *("--seed-ratio=0.0", "--enable-dht=false", "--bt-enable-lpd=true", "--disable-ipv6=true"),
        *("--file-allocation=none", "--bt-max-peers=0", "--console-log-level=warn", "--summary-interval=0"),
        *("--bt-request-peer-speed-limit=100M", "--max-upload-limit=0", f"--on-bt-download-complete={hook}"),
    )
    seeds = ("--bt-seed-unverified=true", f"--dir={bed.file.parent}", f"--listen-port={SWARM_PORT}")
    bed.start(bed.server, "aria2c", *common, *seeds, torrent)
    bed.until_answers(bed.server, SWARM_PORT)

    def client(index: int, host: Host) -> tuple[object, ...]:
        return "aria2c", *common, f"--dir={bed.copy(index).parent}", f"--listen-port={_swarm_port(index)}", torrent

    return _swarm(bed, client)


def libtorrent(bed: Testbed) -> Seconds:
    """Run a swarm of libtorrent with opentracker and local service discovery; all seed until the last is done."""
    torrent = _tracked_torrent(bed)
    program = Path(__file__).with_name("swarm.py")
    seeds = (sys.executable, program, torrent, bed.file.parent, bed.server.address, SWARM_PORT, "--seed")
    bed.start(bed.server, *seeds)
    bed.until_answers(bed.server, SWARM_PORT)

    def client(index: int, host: Host) -> tuple[object, ...]:
        return sys.executable, program, torrent, bed.copy(index).parent, host.address, _swarm_port(index)

    return _swarm(bed, client)


def udpcast(bed: Testbed) -> Seconds:
    """Run one sender to a multicast group that all receivers join."""
    common = ("--nokbd", "--interface", "eth0", "--mcast-rdv-address", MULTICAST_GROUP)
    begun = bed.warm()
    receivers = [
        bed.start(host, "udp-receiver", *common, "--file", bed.copy(index)) for index, host in enumerate(bed.clients)
    ]
    count = len(receivers)
    sender = bed.start(bed.server, "udp-sender", *common, "--min-receivers", count, "--file", bed.file)
    bed.finish([*receivers, sender])
    return {"whole": time.monotonic() - begun}


def _swarm_port(index: int) -> int:
    return SWARM_PORT + 1 + index


def _tracked_torrent(bed: Testbed) -> Path:
    folder = bed.folder / "tracker"
    folder.mkdir()
    address = bed.server.address
    torrent, allowed = bed.folder / "file.torrent", folder / "allowed"
    data, info_hash = torrent_of(bed.file, f"http://{address}:{TRACKER_PORT}/announce")
    torrent.write_bytes(data)
    allowed.write_text(f"{info_hash}\n")
    allowed.chmod(0o644)  # the tracker runs as nobody
    ports = ("-i", address, "-p", TRACKER_PORT, "-P", TRACKER_PORT)
    bed.start(bed.server, "opentracker", *ports, "-d", folder, "-w", allowed.name)
    bed.until_answers(bed.server, TRACKER_PORT)
    return torrent


def _swarm(bed: Testbed, client: Callable[[int, Host], tuple[object, ...]]) -> Seconds:
    """Start clients that touch ``<copy>.done`` when they are done, and keep running."""
    marks = [Path(f"{bed.copy(index)}.done") for index in range(len(bed.clients))]
    begun = bed.warm()
    for index, host in enumerate(bed.clients):
        bed.start(host, *client(index, host))
    bed.until("all clients have the file", lambda: all(mark.exists() for mark in marks))
    return {"whole": time.monotonic() - begun}


def _all_at_once(bed: Testbed, command: Callable[[Host, Path], tuple[object, ...]]) -> Seconds:
    """Start one program at each client, and wait for all of them."""
    begun = bed.warm()
    bed.finish(
        [bed.start(host, *command(host, bed.copy(index))) for index, host in enumerate(bed.clients)],
    )
    return {"whole": time.monotonic() - begun}


TOOLS = (
    Tool("PSP", psp_running, (), "`pspctl seed --wait`, profile fast; the server and all clients run already"),
    Tool("PSP, cold", psp_cold, (), "the same, including the start of the server and all clients"),
    Tool("nginx + curl", nginx_curl, ("nginx", "curl"), "`sendfile`, a worker per core; all clients at once"),
    Tool(
        "libtorrent",
        libtorrent,
        ("libtorrent", "opentracker"),
        "tracker and local discovery, no rate limits, pieces of 1 MiB; all seed until the last has the file",
    ),
    Tool(
        "aria2",
        aria2,
        ("aria2c", "opentracker"),
        "tracker and local discovery, no rate limits, pieces of 1 MiB; all seed until the last has the file",
    ),
    Tool("rsync", rsync, ("rsync",), "a daemon, `--whole-file --inplace`; all clients at once"),
    Tool(
        "udpcast",
        udpcast,
        ("udp-sender",),
        "multicast with default settings; it starts when all clients have joined",
        False,
    ),
)
