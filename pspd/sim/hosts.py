"""The hosts of a virtual network: clients and sources, with their memory, disk and network."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from pspd.core.client.machine import ClientMachine
from pspd.core.effects.server import Assign, Deliver, MemberEffect
from pspd.core.model.manifest import FileId, Manifest
from pspd.core.model.storage import Storage
from pspd.core.server.contributions import Reception
from pspd.core.wire.frames import Frame
from pspd.sim.paths import DatagramPath, Impairments, Pipe
from pspd.text.addresses import Address

Tamper = Callable[[Frame, bytes], bytes | None]
"""Takes a frame and its right payload; returns the payload to send, or None to abort the contribution."""


@dataclass(frozen=True, slots=True)
class HostConditions:
    """The conditions under which a host runs: the impairments of its path to the server, and its rates.

    Attributes:
        impairments: the impairments of the path.
        up_rate: the rate at which the host can send, in bytes per second; 0 for unlimited.
        down_rate: the rate at which the host can receive, in bytes per second; 0 for unlimited.
        disk_rate: the rate at which the host can write to its disk, in bytes per second; 0 for unlimited.
    """

    impairments: Impairments = field(default_factory=Impairments)
    up_rate: int = 0
    down_rate: int = 0
    disk_rate: int = 0


@dataclass(slots=True, eq=False)
class Connection:
    """A TCP connection between a client and the server: a link (fast), or a connection for one transfer (classic).

    Attributes:
        is_open: whether the connection is established.
        queue: deliveries that wait for space in the kernels' buffers.
        buffered_bytes: the payload bytes that are in the kernels' buffers or are being stored by the client.
        receiving: the contribution that the server is receiving on the connection; None for none.
    """

    is_open: bool = False
    queue: deque[Deliver] = field(default_factory=deque)
    buffered_bytes: int = 0
    receiving: Reception | None = None


class Client:
    """A client or a source; ``pspd.sim`` calls both clients.

    Args:
        name: the client's name, unique in the network.
        conditions: the client's impairments and rates.
        store: the store of the client's files.
        random: the network's source of randomness.
        is_source: whether the client is a source.

    Attributes:
        uplink: the client's sending direction.
        downlink: the client's receiving direction.
        disk: the client's disk, as a pipe for the bytes that are written.
        uplink_path: the path of datagrams to the server.
        downlink_path: the path of datagrams from the server.
        machine: the client's state machine; a new one for each run of the process.
        epoch: the number of times that the session was lost or the process ended. An action that is scheduled for one
            epoch does not run in a later epoch.
        session: the number of the client's session; 0 for none.
        joining: whether a Join call is under way.
        alive: whether the client's process runs.
        partitioned: whether no message passes between the client and the server.
        link_blocked: whether the client's attempts to open a link fail.
        downlink_blocked: whether the server's datagrams to the client are lost.
        reads_deliveries: whether the client reads from its connections.
        paused_until: the time until which the client's process is paused, in nanoseconds; a past time if it runs.
        deferred: the actions of the paused process, in order; they run when the process resumes.
        disk_full_until: the time until which the client's disk is full, in nanoseconds; a past time if it has space.
        source_file: the manifest and the bytes of the file that a source offers; None for none.
        tamper: the function that changes the payloads of contributions; None for no change.
        wakes_at: the time of the next scheduled call of the state machine, in nanoseconds; None for none.
        events_arrive_by: the time by which all events and answers to Join that were sent to the client arrive, in
            nanoseconds. Later events do not arrive earlier.
        events: the events of the control plane that have not arrived yet, in order.
        declined_files: the assignments that the client declined and will try again, by file id.
    """

    def __init__(
        self, name: str, conditions: HostConditions, store: Storage, random: Random, *, is_source: bool = False
    ) -> None:
        self.name = name
        self.address: Address = (name, 1)
        self.instance_id = name.encode()
        self.conditions = conditions
        self.store = store
        self.is_source = is_source
        self.uplink, self.downlink = Pipe(conditions.up_rate), Pipe(conditions.down_rate)
        self.disk = Pipe(conditions.disk_rate)
        self.uplink_path = DatagramPath(conditions.impairments, random)
        self.downlink_path = DatagramPath(conditions.impairments, random)
        self.epoch = -1
        self.alive = False
        self.partitioned = False
        self.downlink_blocked = False
        self.link_blocked = False
        self.reads_deliveries = True
        self.disk_full_until = 0
        self.source_file: tuple[Manifest, bytes] | None = None
        self.tamper: Tamper | None = None
        self.events_arrive_by = 0
        self.reset_process(random)

    def reset_process(self, random: Random) -> None:
        """Discard everything that is only in the process's memory."""
        self.machine = ClientMachine(random.getrandbits(32))
        self.paused_until = 0
        self.deferred: deque[tuple[int, Callable[..., object], tuple[object, ...]]] = deque()
        self.end_session()

    def end_session(self) -> None:
        """Discard the client's state of its session, and begin a new epoch."""
        self.epoch += 1
        self.session = 0
        self.joining = False
        self.wakes_at: int | None = None
        self.events: deque[MemberEffect] = deque()
        self.declined_files: dict[FileId, Assign] = {}
        self.link = Connection()
