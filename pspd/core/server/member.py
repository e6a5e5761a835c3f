"""One member of the network, for as long as one session lasts."""

from __future__ import annotations

from collections.abc import Mapping

from pspd.core.model.manifest import FileId
from pspd.core.model.storage import Held
from pspd.core.model.tuning import SERVER_TUNING, ServerTuning
from pspd.core.wire.datagrams import REQUEST_NUMBER_MAX
from pspd.errors import BadArgument
from pspd.text.addresses import Address

CLIENT_NAME_CHARACTERS_MAX = 100

SRTT_US_MAX = 60_000_000
"""The longest round trip, in microseconds, that the server takes from a hello: more is no measurement."""


REQUEST_NUMBER_LAST = REQUEST_NUMBER_MAX - 2**20
"""A session whose request numbers pass this ends before they wrap: the client joins again and counts from 1."""


def validate_client_name(name: str) -> str:
    """Return the name if a client may have it.

    Raises:
        BadArgument: it is empty, too long, a path, or holds control characters.
    """
    if not 0 < len(name.strip()) <= CLIENT_NAME_CHARACTERS_MAX or not name.isprintable() or "/" in name:
        shown = name if len(name) <= CLIENT_NAME_CHARACTERS_MAX else f"{name[:CLIENT_NAME_CHARACTERS_MAX]}..."
        raise BadArgument(
            f"client name {shown!r} is not 1 to {CLIENT_NAME_CHARACTERS_MAX} plain characters: give another with --name"
        )
    return name


class Member:
    """A client or a source. ``Sessions`` alone calls the methods that change it.

    Args:
        session: names it in every message.
        name: its name, which outlives the session.
        source: it holds one file whole and wants none.
        instance_id: who it is, kept with its files.
        delivery_port: where it takes connections for deliveries; 0 if it takes none.
        kept_links: whether it is reached over a link that it keeps open.
        told: what it said at joining that it holds, by file.
        peer: where its control calls come from, for messages; empty if that is not known.
        joined_at: when its session begins, in nanoseconds.
        contested_at: that time if it replaces another session of its identity; None if it replaces none.
        tuning: bounds of its request numbers.

    Attributes:
        address: where its datagrams come from; None before the first.
        linked: its TCP link is open.
        reachable: datagrams passed both ways and its link was open, not too long ago.
        srtt_us: round-trip time as it measured it, in microseconds.
        request_number: the highest number of its requests so far.
        heard_at: when it last renewed its lease, in whatever way, in nanoseconds.
        contested_at: when another session of its identity was last replaced by it, or refused for it; None for never.
        refusal_logged_at: when such a refusal was last logged, in nanoseconds; None for never.
        told_range_count: how many ranges it said at joining that it holds, each file counting as one at least.
    """

    def __init__(
        self,
        session: int,
        name: str,
        source: bool,
        instance_id: bytes,
        delivery_port: int,
        kept_links: bool,
        told: Mapping[FileId, Held] | None = None,
        peer: str = "",
        joined_at: int = 0,
        contested_at: int | None = None,
        tuning: ServerTuning = SERVER_TUNING,
    ) -> None:
        self.session = session
        self.name = name
        self.source = source
        self.instance_id = instance_id
        self.delivery_port = delivery_port
        self.told = dict(told or {})
        self.told_range_count = told_range_count(told)
        self.peer = peer
        self.joined_at = self.heard_at = joined_at
        self.contested_at = contested_at
        self.refusal_logged_at: int | None = None
        self.address: Address | None = None
        self.linked = False
        self.reachable = True
        self.srtt_us = 0
        self.request_number = 0
        self._kept_links = kept_links
        self._jump_max = tuning.request_jump_max

    @property
    def has_data_path(self) -> bool:
        """Whether a delivery can be sent to it, and a contribution come from it, now."""
        return self.address is not None and (self.linked or not self._kept_links)

    @property
    def askable(self) -> bool:
        """Whether it can be asked for chunks."""
        return self.has_data_path and self.reachable

    def note_heard(self, now: int) -> None:
        """Note a sign of life."""
        self.heard_at = now

    def note_datagram(self, address: Address, now: int) -> None:
        """Note a datagram.

        Args:
            address: where it came from.
            now: the time, in nanoseconds.
        """
        self.address, self.heard_at = address, now

    def set_linked(self, linked: bool) -> None:
        """Note whether its TCP link is open."""
        self.linked = linked

    def set_reach(self, reachable: bool) -> None:
        """Note whether it can be asked for chunks."""
        self.reachable = reachable

    def set_srtt(self, srtt_us: int) -> None:
        """Note the round-trip time that it measured; more than a minute counts as a minute."""
        self.srtt_us = min(srtt_us, SRTT_US_MAX)

    def contested(self, now: int) -> None:
        """Note that another session of its identity was refused."""
        self.contested_at = now

    def refusal_logged(self, now: int) -> None:
        """Note that such a refusal is logged."""
        self.refusal_logged_at = now

    def drop_told(self, file_id: FileId) -> None:
        """Forget what it said at joining of a file that is removed."""
        self.told.pop(file_id, None)

    def note_request_number(self, number: int) -> str | None:
        """Note a request's number. Return why the session must end, or None if the number is plausible."""
        if number > self.request_number + self._jump_max:
            return f"request number {number} is more than {self._jump_max} ahead of {self.request_number}: join again"
        if number > REQUEST_NUMBER_LAST:
            return f"request number {number} is near the last of this session: join again"
        self.request_number = max(self.request_number, number)
        return None


def told_range_count(told: Mapping[FileId, Held] | None) -> int:
    """Return how many ranges a member holds at joining, each file counting as one at least."""
    return sum(max(1, known.verified.range_count) for known in told.values()) if told else 0
