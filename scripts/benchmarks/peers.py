"""Ways to bring one file to many machines, each set up as those who want it fast do.

A way is a function that gets a room in which to run, and returns seconds by name: ``whole`` from the command to
the last copy, everything that can run before being up; others where there is more to tell.
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

from scripts.benchmarks.room import DONE_SECONDS, Room
from scripts.benchmarks.torrent import torrent_of
from tests.support.daemons import BIN, Network
from tests.support.hosts import Host

HTTP_PORT, TRACKER_PORT, RSYNC_PORT, SWARM_PORT = 8080, 6969, 8730, 6881
MULTICAST_GROUP = "239.77.0.1"

Seconds = dict[str, float]


@dataclass(frozen=True, slots=True)
class Way:
    """One way to bring a file to many.

    Attributes:
        name: what tables call it.
        run: does it once.
        needs: programs, and modules of Python, without which it is left out.
        set_up: how it is configured, for the reader.
        on_loopback: it can be gone on one host alone.
    """

    name: str
    run: Callable[[Room], Seconds]
    needs: tuple[str, ...]
    set_up: str
    on_loopback: bool = True

    @property
    def missing(self) -> list[str]:
        """What is needed and not here."""
        return [need for need in self.needs if not shutil.which(need) and not importlib.util.find_spec(need)]


def psp_running(room: Room) -> Seconds:
    """``pspctl seed --wait`` with the server and all clients running."""
    with Network(room.folder, room.server) as network:
        _start_psp(room, network)
        return _seed(room, network)


def psp_cold(room: Room) -> Seconds:
    """The same from nothing: the server and all clients are started first."""
    begun = room.warm()
    with Network(room.folder, room.server) as network:
        _start_psp(room, network)
        seconds = _seed(room, network)
    return {"whole": time.monotonic() - begun, "exchange": seconds["exchange"]}


def _start_psp(room: Room, network: Network) -> None:
    network.server()
    joins = ("client", "--server", network.address)
    started = [
        room.start(host, BIN / "pspd", *joins, "--dir", room.folder / f"c{index}", "--name", f"c{index}")
        for index, host in enumerate(room.clients)
    ]
    room.until("all clients have joined", lambda: len(network.status()["clients"]) == len(started))


def _seed(room: Room, network: Network) -> Seconds:
    command = [BIN / "pspctl", "seed", room.file, "--clients", len(room.clients), "--wait", "-o", "json"]
    begun = room.warm()
    done = room.source.run(command, timeout=DONE_SECONDS, env=network.environment)
    ended = time.monotonic()
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    told = json.loads(done.stdout)
    traffic, size = told["file"]["traffic"], told["file"]["size_bytes"]
    contributed = traffic["contributed_bytes"] - traffic["seeding_contributed_bytes"]
    return {
        "whole": ended - begun,
        "exchange": told["seconds"]["exchange"],
        "contributed": contributed / size,
        "duplicate": traffic["duplicate_bytes"] / size,
    }


def nginx_curl(room: Room) -> Seconds:
    """Serve with nginx and sendfile; fetch with curl at each client."""
    config = room.folder / "nginx.conf"
    config.write_text(
        f"""daemon off; user root; worker_processes auto; pid {room.folder}/nginx.pid; error_log stderr;
        events {{ worker_connections 1024; }}
        http {{ access_log off; sendfile on; tcp_nopush on;
          server {{ listen {room.server.address}:{HTTP_PORT}; root {room.file.parent}; }} }}"""
    )
    room.start(room.server, "nginx", "-p", room.folder, "-c", config)
    room.until_answers(room.server, HTTP_PORT)
    url = f"http://{room.server.address}:{HTTP_PORT}/{room.file.name}"
    return _all_at_once(room, lambda host, copy: ("curl", "-sSf", "-o", copy, url))


def rsync(room: Room) -> Seconds:
    """An rsync daemon; rsync of whole files at each client."""
    config = room.folder / "rsyncd.conf"
    config.write_text(
        f"use chroot = no\nport = {RSYNC_PORT}\naddress = {room.server.address}\nuid = 0\ngid = 0\n"
        f"[files]\npath = {room.file.parent}\nread only = yes\nexclude = /run\n"
    )
    room.start(room.server, "rsync", "--daemon", "--no-detach", "--config", config)
    room.until_answers(room.server, RSYNC_PORT)
    url = f"rsync://{room.server.address}:{RSYNC_PORT}/files/{room.file.name}"
    return _all_at_once(room, lambda host, copy: ("rsync", "--whole-file", "--inplace", url, copy))


def aria2(room: Room) -> Seconds:
    """A swarm of aria2 with opentracker and local peer discovery; all seed until the last is done."""
    torrent = _tracked_torrent(room)
    hook = room.folder / "done"
    hook.write_text('#!/bin/sh\ntouch "$3.done"\n')
    hook.chmod(0o755)
    common = (
        *("--seed-ratio=0.0", "--enable-dht=false", "--bt-enable-lpd=true", "--disable-ipv6=true"),
        *("--file-allocation=none", "--bt-max-peers=0", "--console-log-level=warn", "--summary-interval=0"),
        *("--bt-request-peer-speed-limit=100M", "--max-upload-limit=0", f"--on-bt-download-complete={hook}"),
    )
    seeds = ("--bt-seed-unverified=true", f"--dir={room.file.parent}", f"--listen-port={SWARM_PORT}")
    room.start(room.server, "aria2c", *common, *seeds, torrent)
    room.until_answers(room.server, SWARM_PORT)

    def client(index: int, host: Host) -> tuple[object, ...]:
        return "aria2c", *common, f"--dir={room.copy(index).parent}", f"--listen-port={_swarm_port(index)}", torrent

    return _swarm(room, client)


def libtorrent(room: Room) -> Seconds:
    """A swarm of libtorrent with opentracker and local service discovery; all seed until the last is done."""
    torrent = _tracked_torrent(room)
    program = Path(__file__).with_name("swarm.py")
    seeds = (sys.executable, program, torrent, room.file.parent, room.server.address, SWARM_PORT, "--seed")
    room.start(room.server, *seeds)
    room.until_answers(room.server, SWARM_PORT)

    def client(index: int, host: Host) -> tuple[object, ...]:
        return sys.executable, program, torrent, room.copy(index).parent, host.address, _swarm_port(index)

    return _swarm(room, client)


def udpcast(room: Room) -> Seconds:
    """One sender to a multicast group, which all receivers join."""
    common = ("--nokbd", "--interface", "eth0", "--mcast-rdv-address", MULTICAST_GROUP)
    begun = room.warm()
    receivers = [
        room.start(host, "udp-receiver", *common, "--file", room.copy(index)) for index, host in enumerate(room.clients)
    ]
    count = len(receivers)
    sender = room.start(room.server, "udp-sender", *common, "--min-receivers", count, "--file", room.file)
    room.finish([*receivers, sender])
    return {"whole": time.monotonic() - begun}


def _swarm_port(index: int) -> int:
    return SWARM_PORT + 1 + index


def _tracked_torrent(room: Room) -> Path:
    folder = room.folder / "tracker"
    folder.mkdir()
    address = room.server.address
    torrent, allowed = room.folder / "file.torrent", folder / "allowed"
    data, info_hash = torrent_of(room.file, f"http://{address}:{TRACKER_PORT}/announce")
    torrent.write_bytes(data)
    allowed.write_text(f"{info_hash}\n")
    allowed.chmod(0o644)  # the tracker reads it as nobody
    ports = ("-i", address, "-p", TRACKER_PORT, "-P", TRACKER_PORT)
    room.start(room.server, "opentracker", *ports, "-d", folder, "-w", allowed.name)
    room.until_answers(room.server, TRACKER_PORT)
    return torrent


def _swarm(room: Room, client: Callable[[int, Host], tuple[object, ...]]) -> Seconds:
    """Starts clients that go on when they are done, and touch ``<copy>.done``."""
    marks = [Path(f"{room.copy(index)}.done") for index in range(len(room.clients))]
    begun = room.warm()
    for index, host in enumerate(room.clients):
        room.start(host, *client(index, host))
    room.until("everyone is done", lambda: all(mark.exists() for mark in marks))
    return {"whole": time.monotonic() - begun}


def _all_at_once(room: Room, command: Callable[[Host, Path], tuple[object, ...]]) -> Seconds:
    """Starts one program at each client, and waits for all of them."""
    begun = room.warm()
    room.finish(
        [room.start(host, *command(host, room.copy(index))) for index, host in enumerate(room.clients)],
    )
    return {"whole": time.monotonic() - begun}


WAYS = (
    Way("PSP", psp_running, (), "`pspctl seed --wait`, profile fast; the server and all clients run already"),
    Way("PSP, cold", psp_cold, (), "the same, including the start of the server and all clients"),
    Way("nginx + curl", nginx_curl, ("nginx", "curl"), "`sendfile`, a worker per core; all clients at once"),
    Way(
        "libtorrent",
        libtorrent,
        ("libtorrent", "opentracker"),
        "tracker and local discovery, no rate limits, pieces of 1 MiB; all seed until the last has the file",
    ),
    Way(
        "aria2",
        aria2,
        ("aria2c", "opentracker"),
        "tracker and local discovery, no rate limits, pieces of 1 MiB; all seed until the last has the file",
    ),
    Way("rsync", rsync, ("rsync",), "a daemon, `--whole-file --inplace`; all clients at once"),
    Way(
        "udpcast",
        udpcast,
        ("udp-sender",),
        "multicast with default settings; it starts when all clients have joined",
        False,
    ),
)
