"""A lab: several hosts on one machine, as network namespaces connected by a bridge.

The bridge also has a namespace, so the machine's own network does not change. The kernel drops lost packets, without an
error at the sender or the receiver.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from tests.support.hosts import Host

HOST_COUNT_MAX = 200
Direction = Literal["in", "out", "both"]

_PREFIX = "psplab"
_BRIDGE = "bridge"
_PORT = "eth0"
_END_SECONDS = 10
_labs = itertools.count()


def obstacle() -> str | None:
    """Return why no lab can be built here; None if one can."""
    if os.geteuid() != 0:
        return "the lab needs root, for network namespaces"
    for program, package in (("ip", "iproute2"), ("tc", "iproute2"), ("iptables-restore", "iptables")):
        if not shutil.which(program):
            return f"the lab needs {program} (package {package})"
    probe = f"{_PREFIX}-{os.getpid()}-probe"
    done = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return f"network namespaces cannot be created here: {done.stderr.strip()}"
    _tool("ip", "netns", "del", probe)
    return None


@dataclass(frozen=True)
class _Loss:
    """Packets that a host loses.

    Attributes:
        percent: how many.
        protocol: "udp" or "tcp".
        source: the sender's address; None for all.
        port: the other side's port; None for all.
    """

    percent: float
    protocol: str
    source: str | None = None
    port: int | None = None

    @property
    def rule(self) -> str:
        """The rule for iptables-restore."""
        source = f"-s {self.source} " if self.source else ""
        # Packets from the lossy host have the other side's port as destination, packets to it as source.
        port = "" if self.port is None else f"--{'dport' if self.source else 'sport'} {self.port} "
        chance = f"-m statistic --mode random --probability {self.percent / 100:.4f}"
        return f"-A INPUT -i {_PORT} {source}-p {self.protocol} {port}{chance} -j DROP"


class Lab:
    """Hosts on one bridge. Leaving the ``with`` block kills all programs and removes everything.

    >>> with Lab(3) as lab:
    ...     lab.loss(lab.hosts[1], 30)
    ...     lab.hosts[1].run(["pspctl", "status", "--server", f"{lab.hosts[0].address}:7070"])

    Attributes:
        hosts: in order; the i-th has the address 10.77.0.(i + 1).
    """

    def __init__(self, host_count: int) -> None:
        assert 1 <= host_count <= HOST_COUNT_MAX, host_count
        self._name = f"{_PREFIX}-{os.getpid()}-{next(_labs)}"
        self._switch = f"{self._name}-switch"
        self._losses: dict[tuple[Host, str, str, int | None], float] = {}
        self.hosts = tuple(
            Host(f"h{index}", f"10.77.0.{index + 1}", ("ip", "netns", "exec", f"{self._name}-h{index}"))
            for index in range(host_count)
        )

    def __enter__(self) -> Lab:
        _sweep()
        try:
            self._build()
        except BaseException:
            self._tear_down()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tear_down()

    def loss(
        self,
        host: Host,
        percent: float,
        direction: Direction = "both",
        protocol: str = "udp",
        port: int | None = None,
    ) -> None:
        """Drop packets of a host.

        Outgoing packets are dropped at the receiver, because the sender's own kernel would report an error (EPERM).

        Args:
            host: the lossy host.
            percent: how many packets to drop; 0 ends the loss.
            direction: packets to the host, from it, or both.
            protocol: "udp" or "tcp".
            port: only packets to or from this port of other hosts.
        """
        assert 0 <= percent <= 100, percent
        for one in ("in", "out") if direction == "both" else (direction,):
            self._losses[host, one, protocol, port] = percent
        self._apply_losses()

    def shape(self, host: Host, mbit: float, up_mbit: float | None = None) -> None:
        """Limit the speed of a host's link; packets that wait for more than 50 ms are dropped.

        Args:
            host: the host.
            mbit: the speed towards the host, in Mbit/s.
            up_mbit: the speed from it, if it differs.
        """
        _tool("tc", "-n", _space(host), "qdisc", "replace", "dev", _PORT, "root", *_limits(up_mbit or mbit))
        _tool("tc", "-n", self._switch, "qdisc", "replace", "dev", host.name, "root", *_limits(mbit))

    def partition(self, host: Host) -> None:
        """Disconnect a host. Its interface stays up, as behind a switch that fails."""
        _tool("ip", "-n", self._switch, "link", "set", host.name, "nomaster")

    def heal(self, host: Host) -> None:
        """Connect a host again."""
        _tool("ip", "-n", self._switch, "link", "set", host.name, "master", _BRIDGE)

    def _build(self) -> None:
        spaces = [self._switch, *map(_space, self.hosts)]
        _batch("ip", [f"netns add {space}" for space in spaces])
        ports = [
            line
            for host in self.hosts
            for line in (
                f"link add {host.name} type veth peer name {_PORT} netns {_space(host)}",
                f"link set {host.name} master {_BRIDGE} up",
            )
        ]
        _batch("ip", [f"link add {_BRIDGE} type bridge", f"link set {_BRIDGE} up", *ports], self._switch)
        for host in self.hosts:
            lines = [f"addr add {host.address}/24 dev {_PORT}", f"link set {_PORT} up", "link set lo up"]
            _batch("ip", lines, _space(host))

    def _apply_losses(self) -> None:
        for host in self.hosts:
            rules = []
            for (lossy, direction, protocol, port), percent in self._losses.items():
                if percent == 0 or (direction == "in") != (lossy == host):
                    continue
                source = None if lossy == host else lossy.address
                rules.append(_Loss(percent, protocol, source, port).rule)
            table = "\n".join(["*filter", ":INPUT ACCEPT", *rules, "COMMIT", ""])
            _tool(*host.enter, "iptables-restore", text=table)

    def _tear_down(self) -> None:
        for space in _spaces(self._name):
            _end(space)


def _limits(mbit: float) -> list[str]:
    burst_bytes = max(16_000, int(mbit * 1_000_000 / 8 / 100))
    return f"tbf rate {mbit}mbit burst {burst_bytes} latency 50ms".split()


def _space(host: Host) -> str:
    """Return the name of a host's namespace."""
    return host.enter[-1]


def _spaces(prefix: str) -> list[str]:
    """Return the existing namespaces with a prefix."""
    lines = _tool("ip", "netns", "list").splitlines()
    return [name for line in lines if (name := line.partition(" ")[0]).startswith(f"{prefix}-")]


def _sweep() -> None:
    """Remove the namespaces of test processes that were killed."""
    for space in _spaces(_PREFIX):
        owner = re.match(rf"{_PREFIX}-(\d+)-", space)
        if owner and not Path(f"/proc/{owner[1]}").exists():
            _end(space)


def _end(space: str) -> None:
    """Kill every program in a namespace, wait for their end, and remove it with its links."""
    deadline = time.monotonic() + _END_SECONDS
    while pids := _tool("ip", "netns", "pids", space).split():
        for pid in pids:
            # It may have exited since it was listed.
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        if time.monotonic() > deadline:
            raise RuntimeError(f"programs {pids} in {space} outlived SIGKILL for {_END_SECONDS} s")
        time.sleep(0.01)
    _tool("ip", "netns", "del", space)


def _batch(program: str, lines: list[str], space: str | None = None) -> None:
    """Run many lines in one process."""
    _tool(program, *(("-n", space) if space else ()), "-batch", "-", text="\n".join(lines) + "\n")


def _tool(*command: str, text: str | None = None) -> str:
    """Run a system tool, and return its output.

    Raises:
        RuntimeError: it failed; with its error message.
    """
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
