"""The machines of a world: clients, sources among them, and what each has of memory, disk and connection."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from pspd.core.client.machine import ClientMachine
from pspd.core.effects.server import Assign, Deliver, MemberEffect
from pspd.core.model.manifest import FileId, Manifest
from pspd.core.model.storage import Storage
from pspd.core.wire.frames import Frame
from pspd.sim.wires import Air, Pipe, Weather
from pspd.text.addresses import Address

Forge = Callable[[Frame, bytes], bytes | None]
"""What becomes of a payload that a holder sends; None breaks the connection before its end."""


@dataclass(frozen=True, slots=True)
class Access:
    """How one machine is connected, and how fast its disk is.

    Attributes:
        weather: what becomes of its datagrams, and how far the server is.
        up_rate: bytes per second that it can send; 0 for any.
        down_rate: bytes per second that it can receive.
        disk_rate: bytes per second that it can write.
    """

    weather: Weather = field(default_factory=Weather)
    up_rate: int = 0
    down_rate: int = 0
    disk_rate: int = 0


class Link:
    """A client's TCP connection to the server.

    Attributes:
        stands: whether it is open, on both sides.
        queue: deliveries that the server's kernel has not taken yet.
        buffered_bytes: bytes that it has taken and the client has not written yet.
    """

    __slots__ = ("buffered_bytes", "queue", "receiving", "stands")

    def __init__(self) -> None:
        self.stands = False
        self.queue: deque[Deliver] = deque()
        self.buffered_bytes = 0
        self.receiving: Frame | None = None


class Client:
    """A client or a source.

    Attributes:
        access: how it is connected.
        store: its files; they outlive a crash.
        machine: the protocol, as long as the process lives.
        life: counts its lives; what was begun in an earlier one is void.
        session: its session as it knows it; 0 for none.
        alive: its process runs.
        cut_off: nothing passes between it and the server.
        original: the bytes that it seeds, and their manifest, if it is a source.
        events: what the server has told it and has not arrived, in order.
        refused: files that it could not take, as they were assigned; their exchange may have started since.
        forge: what becomes of what it sends.
        deaf: the server's datagrams do not reach it.
        takes_deliveries: whether it reads what is delivered.
        stopped_until: its process stands still until then; its kernel takes what comes.
        full_until: its disk has no room until then.
    """

    def __init__(self, name: str, access: Access, store: Storage, random: Random, *, source: bool = False) -> None:
        self.name = name
        self.address: Address = (name, 1)
        self.instance_id = name.encode()
        self.access = access
        self.store = store
        self.source = source
        self.up, self.down, self.disk = Pipe(access.up_rate), Pipe(access.down_rate), Pipe(access.disk_rate)
        self.air_up, self.air_down = Air(access.weather, random), Air(access.weather, random)
        self.machine = ClientMachine(random.getrandbits(32))
        self.life = 0
        self.session = 0
        self.joining = False
        self.alive = False
        self.cut_off = False
        self.deaf = False
        self.takes_deliveries = True
        self.stopped_until = 0
        self.full_until = 0
        self.link = Link()
        self.original: tuple[Manifest, bytes] | None = None
        self.forge: Forge | None = None
        self.wakes_at: int | None = None
        self.told_at = 0
        self.events: deque[MemberEffect] = deque()
        self.refused: dict[FileId, Assign] = {}

    def reborn(self, random: Random) -> None:
        """The process ends or starts: nothing that was only in memory is left."""
        self.machine = ClientMachine(random.getrandbits(32))
        self.wakes_at = None
        self.stopped_until = 0
        self.end_session()

    def end_session(self) -> None:
        """What was begun within the session is void."""
        self.life += 1
        self.session = 0
        self.joining = False
        self.events.clear()
        self.refused.clear()
        self.link = Link()
