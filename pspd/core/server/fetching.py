"""The pending table at work: whom to ask, when to ask again, what to take in (R7-R9, R11)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

from pspd.core.cache.cache import Cache
from pspd.core.effects.server import CloseLink, ServerEffect, VerifyFile
from pspd.core.effects.shared import SendDatagram
from pspd.core.model.manifest import Digest, FileId
from pspd.core.model.parameters import MILLISECOND_NS, SECOND_NS, Parameters
from pspd.core.model.ranges import Range
from pspd.core.server.broadcasts import Entry, entries_of
from pspd.core.server.file_record import Phase
from pspd.core.server.members import Member
from pspd.core.server.pending import Fetch
from pspd.core.server.shared_file import SharedFile
from pspd.core.timing.rtt import RttEstimator
from pspd.core.timing.timers import Timers, earliest
from pspd.core.timing.window import frame_chunks_in
from pspd.core.wire.datagrams import BROADCAST_RANGES_MAX, encode_broadcast_body, encode_broadcast_head
from pspd.core.wire.frames import Frame
from pspd.core.wire.header import DropReason

NAMED_TRIES = 3
"""How often one holder is named to answer, each time another if there is one, before every holder is asked."""
FETCH_TRIES_MAX = 10
"""After so many broadcasts, or when nobody holds it any more, a fetch is given up; whoever waits for it is served
anew, with other chunks first."""
REORDERING_NS_MIN = 2 * MILLISECOND_NS
"""A broadcast that a later one overtook may still be on its way: it is given this, or half a round trip."""
RECEIVE_NS, RECEIVE_NS_PER_CHUNK = 30 * SECOND_NS, 62 * MILLISECOND_NS
"""How long one contribution may take to come in: so much, and so much for each of its chunks, as at 16 KiB/s. Nobody
else is asked for it meanwhile. That bytes keep coming at all is seen to by the connection."""
OTHERS_TRIED = 16
"""Where those who surely hold a chunk are busy, so many others are looked at for one that holds it too."""
PARTS_MAX = 4096
"""Of how many chunks that came without the rest of their unit the sender is remembered."""
BROADCAST_NS_PER_DATAGRAM = 50_000
"""A broadcast costs a datagram for each who is to hear it. What is to be asked sooner than that after the last ones,
for the first time or again, is gathered: so broadcasts take no more than about half of the server's time, however
many members and files there are. A server that asks again without measure, as it is too busy to take in the answers,
does nothing else any more."""
BROADCAST_DATAGRAMS_IN_A_ROW = 512
"""After so many datagrams the other files' broadcasts wait for the next time, and all other work comes first."""
CACHE_FRACTION, CACHE_FRACTION_SMALL = 4, 2
"""One frame takes at most this fraction of the cache, so that several are on their way at a time."""
FRAME_CHUNKS_SMALL = 64
"""Below this a frame is as large as lets two have room in the cache: what it costs does not depend on its size."""


class Fetching:
    """Brings ranges from their holders into the cache. Effects go to ``emit``, in order.

    Attributes:
        started_count: how many fetches were ever started.
        ended_count: how many of them ended, well or not.
    """

    def __init__(
        self,
        parameters: Parameters,
        cache: Cache,
        digest: Digest,
        members: dict[str, Member],
        emit: Callable[[ServerEffect], None],
        random: Random,
    ) -> None:
        self._parameters = parameters
        self._cache = cache
        self._digest = digest
        self._members = members
        self._emit = emit
        self._random = random
        self._unasked: dict[Fetch, None] = {}
        self._asked_at = 0
        self._asked_datagrams = 0
        self._timers: Timers[Fetch] = Timers()
        self._rtt = RttEstimator()
        self._broadcast_number = 0
        self._parts: dict[tuple[FileId, int], str] = {}
        self.started_count = 0
        self.ended_count = 0

    # -- what to fetch, and of whom

    def fetchable(
        self, file: SharedFile, start: int, stop: int, frame_chunks: int
    ) -> tuple[Range | None, Member | None]:
        """The first part of an open range that can be fetched now as one frame, and the holder to name.

        ``frame_chunks`` is the most that the client takes in one for which it is fetched.

        None as a range: no holder of ``start`` has room, or there is none.
        """
        limit = min(self.frame_chunks, frame_chunks)
        if self._parameters.all_holders_answer:
            available = file.available.within(start, min(stop, file.share_at(start).stop))
            if not available or available[0].start > start:
                return None, None
            return file.manifest.frame_from(*available[0], limit), None
        holder = self._choose_holder(file, start)
        if holder is None:
            return None, None
        stop = min(file.held[holder.name].within(start, stop)[0].stop, file.share_at(start).stop)
        return file.manifest.frame_from(start, stop, limit), holder

    def _choose_holder(self, file: SharedFile, chunk: int) -> Member | None:
        """Who is to send a chunk: the owner of its share if it can, else the holder who is asked least."""
        owner = self._able_to_send([file.share_at(chunk).owner], file, chunk, chunk + 1)
        if owner and owner[0].has_room:
            return owner[0]
        lenders = self._able_to_send(file.lenders, file, chunk, chunk + 1)
        if file.phase is Phase.SEEDING and lenders:
            able = lenders
        else:  # a source is the holder of last resort
            names = file.clients_with_some()
            some = self._random.sample(names, OTHERS_TRIED) if len(names) > OTHERS_TRIED else names
            able = self._able_to_send(some, file, chunk, chunk + 1)
            if not owner and some is not names and not any(each.has_room for each in able):
                able = self._able_to_send(names, file, chunk, chunk + 1)
            if not able and not owner:
                able = lenders
        return min((each for each in able if each.has_room), key=lambda member: member.asked_chunks, default=None)

    def _able_to_send(self, names: Iterable[str], file: SharedFile, start: int, stop: int) -> list[Member]:
        """Those of some members who hold all of a range and can be asked for it."""
        found = []
        for name in names:
            held, member = file.held.get(name), self._members.get(name)
            if held and member is not None and member.askable and held.covers(start, stop):
                found.append(member)
        return found

    @property
    def frame_chunks(self) -> int:
        """The most chunks that one fetch brings: the profile's, or less where the cache is small."""
        capacity = self._cache.capacity_chunks
        small = min(FRAME_CHUNKS_SMALL, capacity // CACHE_FRACTION_SMALL)
        return min(self._parameters.frame_chunks, max(1, small, capacity // CACHE_FRACTION))

    @property
    def _joined_chunks_max(self) -> int:
        """What the narrowest window takes as one frame."""
        return min(self.frame_chunks, frame_chunks_in(self._parameters.window_min_chunks))

    # -- asking

    def start(self, file: SharedFile, span: Range, holder: Member | None) -> Fetch:
        """Fetches a range for which room is reserved; it is broadcast by :meth:`ask`."""
        self.started_count += 1
        fetch = Fetch(file, *span, holder, self.started_count)
        file.fetch_begins(fetch)
        if holder is not None:
            holder.ask(fetch)
        self._unasked[fetch] = None
        return fetch

    def ask(self, now: int) -> None:
        """Broadcasts what is to be asked (R7), the files in turn, unless that was done only a moment ago."""
        if not self._unasked or now < self._ask_due:
            return
        of_files: dict[SharedFile, list[Fetch]] = {}
        for fetch in self._unasked:
            of_files.setdefault(fetch.file, []).append(fetch)
        self._asked_at, self._asked_datagrams = now, 0
        for file, fetches in of_files.items():
            if self._parameters.gathers and self._asked_datagrams >= BROADCAST_DATAGRAMS_IN_A_ROW:
                break
            for fetch in fetches:
                del self._unasked[fetch]
            entries = entries_of(self._joined(file, fetches))
            for index in range(0, len(entries), BROADCAST_RANGES_MAX):
                self._broadcast(file, entries[index : index + BROADCAST_RANGES_MAX], now)

    @property
    def _ask_due(self) -> int:
        return self._asked_at + BROADCAST_NS_PER_DATAGRAM * self._asked_datagrams * self._parameters.gathers

    def _joined(self, file: SharedFile, fetches: list[Fetch]) -> list[Fetch]:
        """Fetches in the order of their chunks, from the first on; neighbours that one holder can send are made one."""
        first = fetches[0].start
        fetches.sort(key=lambda fetch: (fetch.start - first) % file.manifest.chunk_count)
        joined: list[Fetch] = []
        for fetch in fetches:
            if joined and self._can_be_joined(joined[-1], fetch):
                self._join(joined[-1], fetch)
            else:
                joined.append(fetch)
        return joined

    def _can_be_joined(self, fetch: Fetch, following: Fetch) -> bool:
        """Whether one holder is to be asked for both, for the first time, and one frame has room for them."""
        return (
            fetch.holder is following.holder is not None
            and fetch.stop == following.start
            and following.stop - fetch.start <= self._joined_chunks_max
            and fetch.tries == following.tries == 0
        )

    def _join(self, fetch: Fetch, following: Fetch) -> None:
        holder = fetch.holder
        assert holder is not None, "only what one holder sends is joined"
        following.file.fetches.remove(following)
        self._timers.cancel(following)
        for part in (fetch, following):
            holder.excuse(part)
        fetch.stop, fetch.order = following.stop, following.order
        holder.ask(fetch)

    def _broadcast(self, file: SharedFile, entries: list[Entry], now: int) -> None:
        self._broadcast_number += 1
        fetches = [fetch for entry in entries for fetch in entry.fetches]
        for fetch in fetches:
            fetch.number = self._broadcast_number
            fetch.asked_at = now
            fetch.tries += 1
            fetch.overtaken = False
            self._timers.set(fetch, now + self._timeout_ns(fetch))
        body = encode_broadcast_body(file.file_id, self._broadcast_number, tuple(entry.asked for entry in entries))
        for member in self._hearers(file, fetches):
            if member.address is not None:
                self._asked_datagrams += 1
                file.traffic.broadcast_datagrams += 1
                self._emit(SendDatagram(member.address, encode_broadcast_head(member.session) + body))

    def _hearers(self, file: SharedFile, fetches: list[Fetch]) -> Iterable[Member]:
        """Every member (R7). While shares are given out: the sources, and who is named, unless that was tried in vain.

        Nobody else has anything then, and to tell n clients of each of n shares would be the most of seeding's work.
        """
        if file.phase is not Phase.SEEDING or any(fetch.tries > NAMED_TRIES for fetch in fetches):
            return self._members.values()
        sources = self._able_to_send(file.lenders, file, 0, file.manifest.chunk_count)
        if not sources:
            return self._members.values()
        return dict.fromkeys([*sources, *(fetch.holder for fetch in fetches if fetch.holder is not None)])

    def _timeout_ns(self, fetch: Fetch) -> int:
        rtt = fetch.holder.rtt if fetch.holder else self._rtt
        return rtt.timeout_ns(self._random, fetch.tries - 1)

    def next_timeout(self) -> int | None:
        """When :meth:`handle_timeout` is due, and :meth:`ask`."""
        return earliest(self._timers.next_deadline(), self._ask_due if self._unasked else None)

    def handle_timeout(self, now: int) -> list[SharedFile]:
        """Asks again for what did not come (R11), first of one holder, then of all.

        Returns:
            The files of which fetches were given up.
        """
        given_up: list[SharedFile] = []
        for fetch in self._timers.expired(now):
            if fetch.sender is not None:
                self._emit(CloseLink(fetch.sender))
                self._timers.set(fetch, now + _receive_ns(fetch))
            elif self._is_answering(fetch, now):
                self._timers.set(fetch, now + self._timeout_ns(fetch))
            elif fetch.tries >= FETCH_TRIES_MAX or not fetch.is_wanted or not self._is_available(fetch):
                self._give_up(fetch)
                given_up.append(fetch.file)
            else:
                fetch.file.traffic.retransmit_count += fetch.tries > 0
                self._unasked.update(dict.fromkeys(self._ask_otherwise(fetch)))
        self.ask(now)
        return given_up

    def _is_available(self, fetch: Fetch) -> bool:
        """Whether anyone holds some of it: what nobody has is not to keep its place in the cache from the rest."""
        return fetch.file.available.overlaps(fetch.start, fetch.stop)

    def _is_answering(self, fetch: Fetch, now: int) -> bool:
        """Whether the holder named is busy with what it was asked before: it answers in that order."""
        holder = fetch.holder
        if holder is None or fetch.overtaken or not holder.reachable:
            return False
        sending = any(other.sender == holder.session for other in holder.asked)
        return sending or now - holder.heard_at < self._timeout_ns(fetch)

    def _ask_otherwise(self, fetch: Fetch) -> list[Fetch]:
        """Names a holder again, or cuts the fetch into units, which every holder has whole or not at all."""
        silent = fetch.holder
        if silent is None:
            return [fetch] if fetch.tries < NAMED_TRIES else self._cut_into_units(fetch)
        silent.window.timed_out()
        silent.excuse(fetch)
        others = self._some_holders(fetch, but=silent)
        if (others and fetch.tries < NAMED_TRIES) or (not others and self._still_holds(silent, fetch)):
            self._name_one(fetch, others or [silent])
            return [fetch]
        fetch.holder = None
        pieces = self._cut_into_units(fetch)
        for piece in pieces if not others else ():
            self._name_one(piece, self._some_holders(piece))  # nobody has all of it: somebody may have parts
        return pieces

    def _still_holds(self, member: Member, fetch: Fetch) -> bool:
        held = fetch.file.held.get(member.name)
        is_there = self._members.get(member.name) is member
        return is_there and held is not None and held.covers(fetch.start, fetch.stop)

    def _name_one(self, fetch: Fetch, holders: list[Member]) -> None:
        fetch.holder = min(holders, key=lambda member: member.asked_chunks, default=None)
        if fetch.holder is not None:
            fetch.holder.ask(fetch)

    def _cut_into_units(self, fetch: Fetch) -> list[Fetch]:
        file = fetch.file
        file.fetches.remove(fetch)
        self._timers.cancel(fetch)
        self._unasked.pop(fetch, None)
        pieces = []
        for unit, _ in file.manifest.units(fetch.start, fetch.stop):
            piece = fetch.piece(max(unit.start, fetch.start), min(unit.stop, fetch.stop))
            file.fetches.insert(piece)
            pieces.append(piece)
        return pieces

    def _some_holders(self, fetch: Fetch, but: Member | None = None) -> list[Member]:
        """Members but one who can send all of it: some clients, if they are quickly found, else all; else sources."""
        file, names = fetch.file, fetch.file.clients_with_some()
        tried = [names, list(file.lenders)]
        if len(names) > OTHERS_TRIED:
            tried.insert(0, self._random.sample(names, OTHERS_TRIED))
        for some in tried:
            found = [member for member in self._able_to_send(some, file, fetch.start, fetch.stop) if member is not but]
            if found:
                return found
        return []

    def _give_up(self, fetch: Fetch) -> None:
        self._end(fetch)
        self._cache.release(fetch.file.file_id, fetch.start, fetch.stop)

    def give_up_unwanted(self, file: SharedFile) -> None:
        """Gives up every fetch of a file for which nobody waits, as far as it is not being received."""
        for fetch in list(file.fetches):
            if fetch.sender is None and not fetch.is_wanted:
                self._give_up(fetch)

    def link_lost(self, member: Member) -> None:
        """What a holder was asked for will not come over the link that it had: it is asked for again."""
        for fetch in member.asked:
            if fetch.sender is None:
                fetch.overtaken = True
                self._timers.set(fetch, fetch.asked_at)

    def _end(self, fetch: Fetch) -> None:
        self.ended_count += 1
        self._timers.cancel(fetch)
        self._unasked.pop(fetch, None)
        fetch.file.fetch_ends(fetch)
        if fetch.holder is not None:
            fetch.holder.excuse(fetch)

    # -- contributions

    def contribution_started(
        self, member: Member, file: SharedFile, frame: Frame, now: int
    ) -> list[memoryview] | DropReason:
        """A contribution's head has come. Returns where to receive its payload, or why it is to be dropped."""
        fetch = file.fetches.at(frame.start)
        exact = fetch is not None and (fetch.start, fetch.stop) == (frame.start, frame.stop)
        if fetch is None or not exact or fetch.sender is not None or fetch.tries == 0:
            file.traffic.duplicate_bytes += frame.length
            answers = 0 < frame.number <= self._broadcast_number
            return DropReason.DUPLICATE if answers else DropReason.UNSOLICITED
        if frame.number == fetch.number:
            rtt = member.rtt if fetch.holder is member else self._rtt
            rtt.sample(now - fetch.asked_at)
        self._note_overtaken(member, frame.number, now)
        fetch.sender = member.session
        self._unasked.pop(fetch, None)
        self._timers.set(fetch, now + _receive_ns(fetch))
        return self._cache.views(file.file_id, frame.start, frame.stop, frame.length)

    def _note_overtaken(self, member: Member, number: int, now: int) -> None:
        """A holder answers in the order in which it was asked: what it passes over was lost on the way (R11)."""
        member.heard_at = now
        for fetch in member.asked:  # in the order of their numbers; those that have none yet come last
            if fetch.number >= number or fetch.tries == 0:
                break
            if fetch.sender is None and fetch not in self._unasked:
                fetch.overtaken = True
                self._timers.set(fetch, now + max(REORDERING_NS_MIN, member.rtt.srtt_ns // 2))

    def contribution_received(
        self, member: Member | None, file: SharedFile, frame: Frame, now: int
    ) -> Fetch | DropReason:
        """The payload is where it was to go: verify it and cache it (R9).

        Returns:
            The fetch that has ended, or why the payload was dropped.
        """
        fetch = self._being_received(file, frame)
        if not self._are_good(file, file.manifest.whole_units(frame.start, frame.stop)):
            file.traffic.corrupt_bytes += frame.length
            self._suspect(member, file, Range(frame.start, frame.stop))
            self._retry(fetch, now)
            return DropReason.CORRUPT
        self._end(fetch)
        file.traffic.contributed_bytes += frame.length
        if member is not None:
            member.heard_at = now
            member.window.delivered(fetch.chunk_count, member.rtt.min_ns, now)
            self._note_part(member, file, fetch)
        self._cache.commit(file.file_id, fetch.start, fetch.stop)
        return fetch

    def contribution_aborted(self, file: SharedFile, frame: Frame, now: int) -> None:
        """The rest of a contribution will not come: ask again."""
        self._retry(self._being_received(file, frame), now)

    def _being_received(self, file: SharedFile, frame: Frame) -> Fetch:
        fetch = file.fetches.at(frame.start)
        assert fetch is not None, "no such fetch"
        assert fetch.sender == frame.session, "the fetch is received from someone else"
        return fetch

    def _retry(self, fetch: Fetch, now: int) -> None:
        fetch.sender = None
        # At once the first time; a holder that goes on like this is not to set the pace.
        self._timers.set(fetch, now if fetch.tries == 1 else now + self._timeout_ns(fetch))

    def distrust(self, file: SharedFile, ranges: Iterable[Range]) -> None:
        """A client found chunks wrong that came from here: they are fetched anew, unless they are good after all.

        A contribution that is less than a unit cannot be verified when it comes; whole in the cache it can.
        """
        for span in ranges:
            for unit, _ in file.manifest.units(*span):
                whole = self._cache.cached(file.file_id, *unit) == [unit]
                if whole and self._are_good(file, unit):
                    continue
                self._cache.drop(file.file_id, *unit)
                if whole:
                    file.traffic.corrupt_bytes += file.manifest.byte_span(*unit)[1]
                    for sender in dict.fromkeys(self._parts.get((file.file_id, chunk), "") for chunk in range(*unit)):
                        self._suspect(self._members.get(sender), file, unit)

    def _suspect(self, member: Member | None, file: SharedFile, span: Range) -> None:
        """What a member sent was wrong: it is not asked for that again until it has verified what it holds."""
        if member is not None and file.lack(member.name, [span]):
            self._emit(VerifyFile(member.session, file.file_id))

    def _note_part(self, member: Member, file: SharedFile, fetch: Fetch) -> None:
        """Remembers who sent less than a unit: if the unit turns out to be wrong, it may be to blame."""
        whole = file.manifest.whole_units(fetch.start, fetch.stop)
        for chunk in (*range(fetch.start, whole.start), *range(whole.stop, fetch.stop)):
            self._parts[file.file_id, chunk] = member.name
        while len(self._parts) > PARTS_MAX:
            del self._parts[next(iter(self._parts))]

    def _are_good(self, file: SharedFile, units: Range) -> bool:
        """Whether every unit of a run that is in the cache has its digest."""
        views = self._cache.views(file.file_id, *units, file.manifest.byte_span(*units)[1])
        return not file.manifest.wrong_units(*units, views, self._digest)


def _receive_ns(fetch: Fetch) -> int:
    return RECEIVE_NS + RECEIVE_NS_PER_CHUNK * fetch.chunk_count
