"""Each dropped connection and frame is counted under the reason in ``docs/protocol.md``."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field

import pytest

from pspd.core.client.machine import ClientMachine
from pspd.core.effects.client import ReportMilestone
from pspd.core.effects.shared import InputDropped, Milestone
from pspd.core.model.manifest import Manifest
from pspd.core.model.parameters import CLASSIC, FAST, Parameters
from pspd.core.model.ranges import Range
from pspd.core.server.machine import ServerMachine
from pspd.core.wire.datagrams import Hello, Request, encode_datagram
from pspd.core.wire.frames import FRAME_BYTES, Frame, encode_frame
from pspd.core.wire.header import Kind
from pspd.net.client import ClientPlane
from pspd.net.driver import now_ns
from pspd.net.server import ServerPlane
from pspd.store.digests import blake3_digest
from pspd.store.files.memory import MemoryStore
from tests.core.bench import Bench
from tests.core.samples import sessions
from tests.net.connections import SESSION, Far
from tests.support.drop_table import Row, connection_rows
from tests.support.loops import on_loop, until

CHUNKS = 4
ELSEWHERE = ("127.0.0.1", 9)
"""The address of members until they send requests from the test's socket."""
LENGTH = CHUNKS * 1024 - 100
PROFILES = {"classic": CLASSIC, "fast": FAST}


@dataclass
class Scene:
    """One side of a network. A test connects to it as the other side.

    Attributes:
        drops: the counts of dropped input, by reason.
        reports: the reasons in ``InputDropped`` effects.
        session: the session of the member that the test plays.
        manifest: a file with awaited chunks.
        number: the number of the broadcast that requests them.
        dial: opens a connection with this side.
        is_persistent: whether connections are persistent links.
        machine: the server's; None for a client.
    """

    drops: Counter[str]
    reports: list[str]
    session: int
    manifest: Manifest
    dial: Callable[[], Awaitable[Far]]
    is_persistent: bool
    number: int = 0
    machine: ServerMachine | None = None
    open: list[Far] = field(default_factory=list)

    async def connect(self, sent: bytes = b"") -> Far:
        """Open a connection, and send bytes on it."""
        far = await self.dial()
        self.open.append(far)
        await far.send(sent)
        return far

    async def linked(self, sent: bytes = b"") -> Far:
        """Open a connection on which frames are expected, with a LINK frame where one is due."""
        link = encode_frame(Frame(Kind.LINK, self.session)) if self.is_persistent and self.machine else b""
        return await self.connect(link + sent)

    def frame(self, kind: Kind, start: int = 2, stop: int = 0, **changes: int) -> Frame:
        """Return the head of a frame of the awaited file; by default, of its awaited chunks."""
        stop = stop or (4 if self.is_persistent or not self.machine else 3)
        length = self.manifest.byte_span(start, stop)[1]
        frame = Frame(kind, self.session, self.manifest.file_id, start, stop, length, self.number)
        return frame._replace(**changes)

    @property
    def due(self) -> Kind:
        """The kind of frame that this side receives."""
        return Kind.CONTRIBUTION if self.machine else Kind.DELIVERY


@asynccontextmanager
async def server_scene(parameters: Parameters) -> AsyncIterator[Scene]:
    """Yield a server that has requested two chunks from "b", for "a"."""
    machine, reports = ServerMachine(parameters, 64, blake3_digest, 1, sessions(1)), list[str]()

    def control(effect: object) -> None:
        if isinstance(effect, InputDropped):
            reports.append(str(effect.reason))

    with closing(ServerPlane(machine, control, ["127.0.0.1"], 0)) as plane:
        a, b, source = (
            machine.member_joined(name, name.encode(), now_ns(), is_source=name == "s", delivery_port=1)
            for name in "abs"
        )
        for member in (a, b):  # members that were never heard get no share
            machine.receive_datagram(encode_datagram(Hello(member.session, 1, 0)), ELSEWHERE, now_ns())
        manifest = Bench().manifest("f", CHUNKS, 2)
        machine.catalogue.announce(manifest, source.session)
        machine.catalogue.divide(manifest, source.session, now_ns())
        for member in (a, b):
            report = ReportMilestone(manifest.file_id, Milestone.SHARE_HELD, CHUNKS // 2)
            machine.catalogue.milestone_reached(member.session, report, now_ns())
        plane.pump()

        async def dial() -> Far:
            return Far(socket.create_connection(("127.0.0.1", plane.port)))

        scene = Scene(machine.drop_counts, reports, b.session, manifest, dial, parameters.kept_links, 0, machine)
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as datagrams:
            for member in (a, b):
                await ask(scene, machine, datagrams, plane.port, member.session)
        plane.pump()
        fetches = machine._pending.table_of(manifest.file_id).fetches
        await until("the broadcast", lambda: any(fetch.tries for fetch in fetches))
        yield scene
        for far in scene.open:
            far.stream.close()


async def ask(scene: Scene, machine: ServerMachine, datagrams: socket.socket, port: int, session: int) -> None:
    """Send a request from a member, which shows its address; "a" requests two chunks."""
    ranges = (Range(2, 4),) if session != scene.session else ()
    request = Request(session, scene.manifest.file_id, 1, 0, 100, ranges)
    datagrams.sendto(encode_datagram(request), ("127.0.0.1", port))
    member = machine.sessions.get(session)
    await until("the request", lambda: member.address != ELSEWHERE)
    if scene.is_persistent:
        machine.link_opened(session, now_ns())


@asynccontextmanager
async def client_scene(parameters: Parameters) -> AsyncIterator[Scene]:
    """Yield a client with two missing chunks of a file; the test is its server."""
    machine, reports, store = ClientMachine(seed=1), list[str](), MemoryStore(blake3_digest)

    def control(effect: object) -> None:
        if isinstance(effect, InputDropped):
            reports.append(str(effect.reason))

    plane = ClientPlane(machine, store, control, lambda _: None, lambda _, __: None)
    with closing(plane), closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.setblocking(False)
        port = plane.listen(socket.AF_INET)
        plane.join(SESSION, listener.getsockname(), parameters)
        manifest = Bench().manifest("f", CHUNKS, 2)
        plane.assign(manifest, (), True)

        async def dial() -> Far:
            if parameters.kept_links:
                stream, _ = await asyncio.get_running_loop().sock_accept(listener)
                return Far(stream)
            return Far(socket.create_connection(("127.0.0.1", port)))

        scene = Scene(machine.drop_counts, reports, SESSION, manifest, dial, parameters.kept_links, 1)
        yield scene
        for far in scene.open:
            far.stream.close()


SCENES = {"server": server_scene, "client": client_scene}

# Each carries out a row of the table in a scene, and returns the number of drops that it causes.

Trial = Callable[[Scene], Awaitable[int]]


async def too_many(scene: Scene) -> int:
    await scene.connect()
    return 1


async def silent(scene: Scene) -> int:
    """Send an incomplete head; send nothing on another connection, if it is not persistent."""
    await scene.linked(b"PS")
    if not scene.is_persistent:
        await scene.connect()
    return len(scene.open)


async def no_link(scene: Scene) -> int:
    await scene.connect()
    await scene.connect(encode_frame(Frame(Kind.LINK, scene.session))[:40])
    return 2


async def closed_within_a_head(scene: Scene) -> int:
    lengths = (1, 10, 40, FRAME_BYTES - 1)
    for length in lengths:
        far = await scene.linked(encode_frame(scene.frame(scene.due))[:length])
        far.stream.close()
    return len(lengths)


def heads(*changes: Callable[[bytes], bytes]) -> Trial:
    """Return a trial that sends a head with each of these changes, on separate connections."""

    async def trial(scene: Scene) -> int:
        for change in changes:
            far = await scene.linked(change(encode_frame(scene.frame(scene.due))))
            await ended(far)
        return len(changes)

    return trial


async def bad_range_head(scene: Scene) -> int:
    frames = [scene.frame(scene.due, start=start) for start in (3, 2)]
    bad = [frames[0]._replace(stop=3), frames[1]._replace(stop=1), frames[0]._replace(length=0)]
    bad.append(Frame(Kind.LINK, scene.session, length=1))
    for frame in bad:
        await ended(await scene.linked(encode_frame(frame)))
    return len(bad)


async def misplaced(scene: Scene) -> int:
    link, other = encode_frame(Frame(Kind.LINK, scene.session)), encode_frame(scene.frame(Kind.CONTRIBUTION))
    delivery = encode_frame(scene.frame(Kind.DELIVERY))
    wrong = [other, delivery, link + link, other * 3] if scene.is_persistent else [link, link * 2]
    for sent in wrong:
        await ended(await scene.connect(sent))
    return len(wrong)


async def unknown_session(scene: Scene) -> int:
    others = encode_frame(scene.frame(scene.due, session=5)) + bytes(10)
    unknown = encode_frame(Frame(Kind.LINK, 5))
    wrong = [unknown, encode_frame(Frame(Kind.LINK, 0)), encode_frame(Frame(Kind.LINK, scene.session)) + others]
    for sent in wrong:
        await ended(await scene.connect(sent))
    return len(wrong)


def dropped(*changed: Callable[[Scene], list[Frame]]) -> Trial:
    """Return a trial that sends frames whose payload is dropped: on one link, or each on its own connection."""

    async def trial(scene: Scene) -> int:
        frames = [frame for change in changed for frame in change(scene)]
        sent = [encode_frame(frame) + bytes(frame.length) for frame in frames]
        if scene.is_persistent:
            far = await scene.linked(b"".join(sent))
            await until("all are dropped", lambda: sum(scene.drops.values()) >= len(frames))
            assert not far_is_closed(far)
        else:
            for each in sent:
                await ended(await scene.linked(each))
        return len(frames)

    return trial


def wrong_kinds(scene: Scene) -> list[Frame]:
    kinds = {Kind.DELIVERY} if scene.machine else {Kind.CONTRIBUTION, Kind.LINK}
    return [scene.frame(kind) if kind is not Kind.LINK else Frame(kind, scene.session) for kind in kinds]


def other_sessions(scene: Scene) -> list[Frame]:
    return [scene.frame(scene.due, session=session) for session in (0, 5, scene.session ^ 1)]


def unknown_file(scene: Scene) -> list[Frame]:
    frame = scene.frame(scene.due)
    files = [bytes(32)]
    if scene.machine is not None:
        member = scene.machine.member_joined("t", b"t", now_ns(), is_source=True)
        announced = Bench().manifest("g", CHUNKS)
        scene.machine.catalogue.announce(announced, member.session)
        files.append(announced.file_id)
    return [frame._replace(file_id=file_id) for file_id in files]


def beyond_the_end(scene: Scene) -> list[Frame]:
    frame = scene.frame(scene.due)
    return [
        frame._replace(stop=CHUNKS + 1, length=3 * 1024),
        frame._replace(stop=2**32 - 1),
        frame._replace(length=frame.length + 1),
        frame._replace(length=1),
        frame._replace(start=1),
    ]


def not_awaited(number: int) -> Callable[[Scene], list[Frame]]:
    return lambda scene: [
        scene.frame(scene.due, start, stop, number=number) for start, stop in ((0, 2), (1, 3), (0, 1), (3, 4))
    ]


async def aborted(scene: Scene) -> int:
    far = await scene.linked(encode_frame(scene.frame(scene.due, number=1)) + bytes(100))
    far.stream.close()
    return 1


async def corrupt(scene: Scene) -> int:
    """Send corrupt chunks: a server drops the whole contribution, a client each of the two units."""
    frame = scene.frame(scene.due, number=1)
    await scene.linked(encode_frame(frame) + bytes(frame.length))
    return 1 if scene.machine else 2


def changed_byte(offset: int, *values: int) -> list[Callable[[bytes], bytes]]:
    return [lambda head, value=value: head[:offset] + bytes([value]) + head[offset + 1 :] for value in values]  # type: ignore[misc]


TRIALS: dict[str, Trial] = {
    "a connection while 8192 others have not sent LINK (fast) or are open (classic)": too_many,
    "a connection while 256 others are open (classic)": too_many,
    "a connection that has not sent LINK 15 s after it was accepted (fast)": no_link,
    "a connection without a byte for 15 s, before its first frame (classic) or within a head": silent,
    "a connection that its peer closes within a head": closed_within_a_head,
    "a head with another magic": heads(*changed_byte(0, 0, ord("H")), *changed_byte(1, ord("s"))),
    "a head with another version": heads(*changed_byte(2, 0, 2, 255)),
    "a head whose kind is not that of a frame": heads(*changed_byte(3, 0, 1, 2, 3, 4, 5, 6, 15, 19, 255)),
    "a head with a length of more than 16 MiB": heads(
        lambda head: head[:72] + (16 * 1024 * 1024 + 1).to_bytes(4, "big") + head[76:],
        lambda head: head[:72] + b"\xff" * 4 + head[76:],
    ),
    "LINK with a payload; another frame whose start is not below its stop, or without a payload": bad_range_head,
    "on a link, another frame than LINK first, or LINK again (fast); LINK on a connection per transfer (classic)": (
        misplaced
    ),
    "LINK of an unknown session; another frame whose session is not that of its link": unknown_session,
    "a frame of a kind that this side does not receive": dropped(wrong_kinds),
    "CONTRIBUTION of an unknown session (classic); DELIVERY of any session but the client's own": dropped(
        other_sessions
    ),
    "CONTRIBUTION for a file that is not in the network, not divided yet, or removed; "
    "DELIVERY for one that was not assigned": dropped(unknown_file),
    "a frame beyond the file's end, or with a length that does not fit its chunks": dropped(beyond_the_end),
    "CONTRIBUTION to a broadcast, of a range that is not or no longer being fetched, or is being received already": (
        dropped(not_awaited(1))
    ),
    "CONTRIBUTION of such a range whose number is not that of any broadcast: an unsolicited one": dropped(
        not_awaited(0), not_awaited(1000), not_awaited(2**64 - 1)
    ),
    "CONTRIBUTION that was accepted, and whose connection closes, or is silent for 15 s, before the payload is "
    "complete": aborted,
    "CONTRIBUTION with a unit whose digest does not match; at a client, each such unit": corrupt,
}
"""The trial of each row of the table."""


def profiles_of(row: Row) -> list[str]:
    """Return the profiles to which a row applies."""
    if row.what.endswith("(fast)"):
        return ["fast"]
    is_classic = row.what.endswith("(classic)") and row.side == "client"
    if is_classic or (row.reason == "unknown_session" and row.then == "payload dropped" and row.side == "server"):
        return ["classic"]
    return ["fast"] if row.reason == "unknown_session" and row.then == "closed" else ["classic", "fast"]


CASES = [
    pytest.param(row, name, id=f"{row.side}-{row.reason}-{name}")
    for row in connection_rows()
    for name in profiles_of(row)
]


async def ended(far: Far) -> None:
    """Wait until the other side has closed a connection."""
    async with asyncio.timeout(10):
        try:
            while await far.receive(1):
                pass
        except ConnectionError:
            pass


def far_is_closed(far: Far) -> bool:
    try:
        return far.stream.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_trials_match_rows_of_table() -> None:
    assert sorted({row.what for row in connection_rows()}) == sorted(TRIALS)


@pytest.mark.parametrize(("row", "profile"), CASES)
@on_loop
async def test_dropped_frame_is_counted_as_table_says(row: Row, profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if row.reason == "silent":
        monkeypatch.setattr("pspd.net.server.IDENTIFY_SECONDS_MAX", 0.05)
        monkeypatch.setattr("pspd.net.connection.READ_TIMEOUT_SECONDS", 0.05)
    elif row.reason == "too_many":
        monkeypatch.setattr("pspd.net.server.UNIDENTIFIED_CONNECTIONS_MAX", 0)
        monkeypatch.setattr("pspd.net.client.CONNECTIONS_MAX", 0)
    async with SCENES[row.side](PROFILES[profile]) as scene:
        count = await TRIALS[row.what](scene)
        await until(f"{count} drops, not {scene.drops}", lambda: sum(scene.drops.values()) >= count)
        for far in scene.open if row.then == "closed" and row.reason not in ("too_short", "aborted") else ():
            await ended(far)
        assert scene.drops == {row.reason: count}
        await until("all are reported", lambda: len(scene.reports) == count)
        assert set(scene.reports) == {row.reason}
