"""The hosts of a virtual network: clients and sources, with their memory, disk and link to the server."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from pspd.core.client.machine import ClientMachine
from pspd.core.effects.server import Assign, Deliver, MemberEffect
from pspd.core.model.manifest import FileId, Manifest
from pspd.core.model.storage import Storage
from pspd.core.server.contributions import Receipt
from pspd.core.wire.frames import Frame
from pspd.sim.paths import DatagramPath, Impairments, Pipe
from pspd.text.addresses import Address

Tamper = Callable[[Frame, bytes], bytes | None]
"""Returns the payload that a holder sends instead of the right one; None breaks the connection mid-frame."""


@dataclass(frozen=True, slots=True)
class Access:
    """A host's link to the server, and the speed of its disk.

    Attributes:
        impairments: delay of the path, and what happens to its datagrams.
        up_rate: bytes per second that the host can send; 0 for unlimited.
        down_rate: bytes per second that it can receive; 0 for unlimited.
        disk_rate: bytes per second that it can write; 0 for unlimited.
    """

    impairments: Impairments = field(default_factory=Impairments)
    up_rate: int = 0
    down_rate: int = 0
    disk_rate: int = 0


@dataclass(slots=True, eq=False)
class Link:
    """A client's TCP connection to the server.

    Attributes:
        is_open: whether it is established, on both sides.
        queue: deliveries that wait for space in the kernels' buffers.
        buffered_bytes: bytes in those buffers that the client has not stored yet.
        receiving: the contribution that the server is receiving.
    """

    is_open: bool = False
    queue: deque[Deliver] = field(default_factory=deque)
    buffered_bytes: int = 0
    receiving: Receipt | None = None


class Client:
    """A client or a source.

    Args:
        name: unique in the network.
        access: its network link and disk.
        store: its files.
        random: the network's source of randomness.
        source: whether it is a source.

    Attributes:
        machine: the protocol's state; new after a restart of the process.
        epoch: the number of sessions and restarts so far; an action scheduled in an earlier epoch is void.
        session: the session as the client knows it; 0 for none.
        joining: whether a Join call is under way.
        alive: whether its process runs.
        partitioned: whether nothing passes between it and the server.
        link_blocked: whether its attempts to open a link fail.
        downlink_blocked: whether the server's datagrams are lost.
        reads_deliveries: whether it reads from its link.
        paused_until: when its stopped process resumes; its kernel still receives.
        deferred: the actions of its stopped process, in order; they run when it resumes.
        disk_full_until: when its disk has space again.
        source_file: manifest and bytes of the file that it seeds; None for a client.
        tamper: changes the payloads that it sends; None for none.
        wakes_at: when its machine's timer fires, in nanoseconds; None for not at all.
        last_event_at: when the last event sent to it arrives; the control plane keeps the order.
        events: events of the control plane that have not arrived.
        declined_files: the assignments that it declined and retries.
    """

    def __init__(self, name: str, access: Access, store: Storage, random: Random, *, source: bool = False) -> None:
        self.name = name
        self.address: Address = (name, 1)
        self.instance_id = name.encode()
        self.access = access
        self.store = store
        self.source = source
        self.up, self.down, self.disk = Pipe(access.up_rate), Pipe(access.down_rate), Pipe(access.disk_rate)
        self.path_up = DatagramPath(access.impairments, random)
        self.path_down = DatagramPath(access.impairments, random)
        self.epoch = -1
        self.alive = False
        self.partitioned = False
        self.downlink_blocked = False
        self.link_blocked = False
        self.reads_deliveries = True
        self.disk_full_until = 0
        self.source_file: tuple[Manifest, bytes] | None = None
        self.tamper: Tamper | None = None
        self.last_event_at = 0
        self.reset_process(random)

    def reset_process(self, random: Random) -> None:
        """Discard everything that is only in the process's memory."""
        self.machine = ClientMachine(random.getrandbits(32))
        self.paused_until = 0
        self.deferred: deque[tuple[int, Callable[..., object], tuple[object, ...]]] = deque()
        self.end_session()

    def end_session(self) -> None:
        """Discard the session's state, and begin a new epoch."""
        self.epoch += 1
        self.session = 0
        self.joining = False
        self.wakes_at: int | None = None
        self.events: deque[MemberEffect] = deque()
        self.declined_files: dict[FileId, Assign] = {}
        self.link = Link()
