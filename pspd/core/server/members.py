"""The server's view of its members, and of what each has asked."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from pspd.core.model.manifest import FileId
from pspd.core.model.parameters import SECOND_NS, Parameters
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.storage import Held
from pspd.core.timing.rtt import RttEstimator
from pspd.core.timing.window import Window, frame_chunks_in
from pspd.core.wire.datagrams import REQUEST_NUMBER_MAX
from pspd.errors import BadArgument
from pspd.text.addresses import Address

if TYPE_CHECKING:
    from pspd.core.server.pending import Fetch
    from pspd.core.server.shared_file import SharedFile


FETCH_RTO_MIN_NS = SECOND_NS
"""As RFC 6298 has it (2.4). Asking a second holder too early brings a whole frame twice, and where dozens of clients
share a processor less than that is too early; what is lost is mostly seen by its order, not by time."""


CLIENT_NAME_CHARACTERS_MAX = 100


def validate_client_name(name: str) -> str:
    """Returns the name if a client may have it.

    Raises:
        BadArgument: it is empty, too long, a path, or holds control characters.
    """
    if not 0 < len(name.strip()) <= CLIENT_NAME_CHARACTERS_MAX or not name.isprintable() or "/" in name:
        shown = name if len(name) <= CLIENT_NAME_CHARACTERS_MAX else f"{name[:CLIENT_NAME_CHARACTERS_MAX]}..."
        raise BadArgument(
            f"client name {shown!r} is not 1 to {CLIENT_NAME_CHARACTERS_MAX} plain characters: give another with --name"
        )
    return name


ECHOES_MAX = 16
"""How many requests may be waiting for the delivery that measures their round trip."""

SRTT_US_MAX = 60_000_000
"""The longest round trip, in microseconds, that the server takes from a hello: more is no measurement."""
REQUEST_JUMP_MAX = 2**20
"""How far a request number may be ahead of every earlier one of its session. Lost datagrams do not explain a larger
jump, which would make the client's own requests stale."""
REQUEST_NUMBER_LAST = REQUEST_NUMBER_MAX - REQUEST_JUMP_MAX
"""A session whose request numbers pass this ends before they wrap: the client joins again and counts from 1."""

GIVEN_UP_MAX = 16
"""How many deliveries that were given up for lost are remembered."""


class Echo(NamedTuple):
    """A request whose round trip is to be measured: by a delivery of what was fetched after it came.

    Attributes:
        number: the request's.
        fetch_order: how many fetches had been started when it came.
    """

    number: int
    fetch_order: int


class Interest:
    """What one client has asked of one file, and what became of it.

    What was asked for is *open* until it is delivered, and then *in flight* until the client acknowledges
    it. The window bounds what is in flight. ``echoes`` is empty once the client has to stand in line, as
    waiting says nothing of the network. What was *given up* for lost may have been on its way all the same, and is
    known by its number if it is acknowledged after all. ``turn`` is the file's count of acknowledging requests at the
    client's last one: how far it is behind the others. ``requested_at`` is when its last request came, in nanoseconds.
    """

    __slots__ = (
        "_expected_as_of",
        "_expected_chunks",
        "echoes",
        "file",
        "given_up",
        "in_flight",
        "in_flight_chunks",
        "member",
        "number",
        "open",
        "requested_at",
        "turn",
        "window_chunks",
    )

    def __init__(self, member: Member, file: SharedFile) -> None:
        self.member = member
        self.file = file
        self.number = 0
        self.requested_at = 0
        self.echoes: deque[Echo] = deque(maxlen=ECHOES_MAX)
        self.window_chunks = 0
        self.open = RangeSet()
        self.in_flight: dict[int, Range] = {}
        self.in_flight_chunks = 0
        self.given_up: dict[int, Range] = {}
        self.turn = file.turn_count
        self._expected_chunks = 0
        self._expected_as_of = file.fetching_changes

    @property
    def frame_chunks(self) -> int:
        """The most chunks that one frame is to bring it."""
        return frame_chunks_in(self.window_chunks)

    @property
    def window_left_chunks(self) -> int:
        """How many more chunks the client will take now."""
        return self.window_chunks - self.in_flight_chunks

    @property
    def expected_chunks(self) -> int:
        """How many chunks that it waits for are being fetched; counted when that has changed, as it is asked often."""
        if self._expected_as_of != self.file.fetching_changes:
            self._expected_as_of = self.file.fetching_changes
            self._expected_chunks = self.open.common(self.file.fetching).chunk_count
        return self._expected_chunks

    def echo_of(self, fetch_order: int) -> int:
        """The newest request that came before a fetch was started; 0 if none did."""
        echoes = self.echoes
        while len(echoes) > 1 and echoes[1].fetch_order < fetch_order:
            echoes.popleft()
        return echoes[0].number if echoes and echoes[0].fetch_order < fetch_order else 0

    def want(self, ranges: RangeSet) -> None:
        """The client wants this, and nothing else; what is in flight is not wanted again. The set is taken over."""
        if not (self.open or self.in_flight):
            self.turn = self.file.turn_count  # until now it did not wait
        self.open = ranges
        self.open.difference_update(self.in_flight.values())
        self._open_changed()

    def want_again(self, span: Range) -> None:
        """A delivery was lost: what was in it is open again, until the client says what it lacks."""
        self.open.add(*span)
        self._open_changed()

    def depart(self, number: int, span: Range) -> None:
        """A delivery of what was open is on its way."""
        self.in_flight[number] = span
        self.in_flight_chunks += span.chunk_count
        self.member.claimed_chunks += span.chunk_count
        self.open.discard(*span)
        self._open_changed()

    def arrived(self, number: int) -> Range:
        """A delivery is no longer on its way. Returns its range."""
        span = self.in_flight.pop(number)
        self.in_flight_chunks -= span.chunk_count
        return span

    def take_turn(self) -> None:
        """The client has acknowledged something; all who do that in turn keep up with each other."""
        self.file.turn_count += 1
        self.turn = self.file.turn_count

    def give_up(self) -> None:
        """Nothing is on its way any more, as far as is known."""
        for number in list(self.in_flight):
            self.given_up[number] = self.arrived(number)
        while len(self.given_up) > GIVEN_UP_MAX:
            del self.given_up[next(iter(self.given_up))]

    def _open_changed(self) -> None:
        self._expected_as_of = -1
        if self.open:
            self.file.waiting[self] = None
        else:
            self.file.waiting.pop(self, None)


class Member:
    """A client or a source, for as long as one session lasts.

    Attributes:
        session: names it in every message.
        name: its name, which outlives the session.
        source: it holds one file whole and wants none.
        instance_id: who it is, kept with its files.
        address: where its datagrams come from; None before the first.
        told: what it said at joining that it holds, by file; but nothing of what was removed since.
        told_range_count: how many ranges that was, at joining.
        delivery_port: where it takes connections for deliveries; 0 if it takes none.
        linked: its TCP link is open.
        in_reach: datagrams pass both ways and its link stands, or it did not take too long to show that.
        srtt_us: round-trip time as it measured it, in microseconds.
        rtt: round trips from a broadcast to the contribution that answers it.
        window: how many chunks may be asked of it at a time.
        asked: the fetches that name it, in the order in which they did.
        asked_chunks: how many chunks those are.
        claimed_chunks: chunks in deliveries to it that have not left the cache yet.
        heard_at: when a contribution of it last began or ended, in nanoseconds.
        request_number: the highest number of its requests so far.
        peer: where its control calls come from, for messages; empty if that is not known.
        joined_at: when its session began, in nanoseconds.
        spoke_at: when it last renewed its lease, in whatever way, in nanoseconds.
        contested_at: when another session of its identity was last replaced by it, or refused for it; None for never.
        refusal_told_at: when the log was last told of such a refusal, in nanoseconds; None for never.
    """

    def __init__(
        self,
        session: int,
        name: str,
        source: bool,
        instance_id: bytes,
        delivery_port: int,
        parameters: Parameters,
        told: Mapping[FileId, Held] | None = None,
        peer: str = "",
    ) -> None:
        self.session = session
        self.name = name
        self.source = source
        self.instance_id = instance_id
        self.address: Address | None = None
        self.told = dict(told or {})
        self.told_range_count = 0
        self.delivery_port = delivery_port
        self.linked = False
        self.in_reach = True
        self.srtt_us = 0
        self.rtt = RttEstimator(FETCH_RTO_MIN_NS)
        self.window = Window(parameters.window_min_chunks, parameters.window_max_chunks)
        self.asked: dict[Fetch, None] = {}
        self.asked_chunks = 0
        self.claimed_chunks = 0
        self.heard_at = 0
        self.request_number = 0
        self.peer = peer
        self.joined_at = 0
        self.spoke_at = 0
        self.contested_at: int | None = None
        self.refusal_told_at: int | None = None
        self.interests: dict[FileId, Interest] = {}
        self._kept_links = parameters.kept_links

    @property
    def reachable(self) -> bool:
        """Whether a delivery can be sent to it, and a contribution come from it, now."""
        return self.address is not None and (self.linked or not self._kept_links)

    @property
    def askable(self) -> bool:
        """Whether it can be asked for chunks."""
        return self.reachable and self.in_reach

    @property
    def has_room(self) -> bool:
        """Whether its window allows that it be asked for more."""
        return self.asked_chunks < self.window.chunks

    def measured(self, srtt_us: int) -> None:
        """The member says how far away it is; 0 if it does not know. More than a minute is taken for a minute."""
        srtt_us = min(srtt_us, SRTT_US_MAX)
        self.srtt_us = srtt_us
        if srtt_us and not self.rtt.srtt_ns:
            self.rtt.sample(srtt_us * 1000)

    def take_request_number(self, number: int) -> str | None:
        """Takes note of a request's number. Returns why the session must end, or None if the number is plausible."""
        if number > self.request_number + REQUEST_JUMP_MAX:
            return f"request number {number} is more than {REQUEST_JUMP_MAX} ahead of {self.request_number}: join again"
        if number > REQUEST_NUMBER_LAST:
            return f"request number {number} is near the last of this session: join again"
        self.request_number = max(self.request_number, number)
        return None

    def ask(self, fetch: Fetch) -> None:
        """A fetch names the member to answer."""
        self.asked[fetch] = None
        self.asked_chunks += fetch.chunk_count

    def excuse(self, fetch: Fetch) -> None:
        """A fetch names the member no longer."""
        del self.asked[fetch]
        self.asked_chunks -= fetch.chunk_count

    def interest_in(self, file: SharedFile) -> Interest:
        """What it has asked of a file; nothing at first."""
        found = self.interests.get(file.file_id)
        if found is None:
            found = self.interests[file.file_id] = Interest(self, file)
        return found
