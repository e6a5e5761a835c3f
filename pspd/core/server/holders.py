"""Holders: chooses the members to ask for chunks, and the range to ask for (R7, R8)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from pspd.core.model.file_record import Phase
from pspd.core.model.parameters import Parameters
from pspd.core.model.ranges import Range
from pspd.core.model.tuning import ServerTuning
from pspd.core.server.pending import Fetch, HolderRecord, Pending
from pspd.core.server.sessions import Sessions
from pspd.core.server.shared_file import SharedFile


@dataclass(eq=False)
class HolderSelector:
    """Chooses among the members that hold a range.

    Args:
        _parameters: the profile.
        _sessions: the connected members.
        _pending: the pending table, which has the holder record of each member.
        _random: the random number generator that draws samples of the clients if they are many.
        _tuning: the size of these samples.
    """

    _parameters: Parameters
    _sessions: Sessions
    _pending: Pending
    _random: Random
    _tuning: ServerTuning

    def next_fetch(
        self, file: SharedFile, start: int, stop: int, frame_chunks: int
    ) -> tuple[Range | None, HolderRecord | None]:
        """Return the first part of a wanted range that one fetch can get, and the holder to name.

        Args:
            file: the file.
            start: the first chunk of the wanted range.
            stop: one past the last chunk of the wanted range.
            frame_chunks: the most chunks in one delivery to the requester.

        Returns:
            The range to fetch, or None if no holder can be asked for chunk ``start`` now; and the holder to name, or
            None to name no holder.
        """
        limit = min(self._pending.fetch_chunks_max, frame_chunks)
        if self._parameters.all_holders_answer:
            available = file.availability.available.within(start, min(stop, file.shares.at(start).stop))
            if not available or available[0].start > start:
                return None, None
            return file.manifest.next_frame_range(*available[0], limit), None
        holder = self._choose(file, start)
        if holder is None:
            return None, None
        held = file.availability.held[holder.member.name]
        stop = min(held.within(start, stop)[0].stop, file.shares.at(start).stop)
        return file.manifest.next_frame_range(start, stop, limit), holder

    def _choose(self, file: SharedFile, chunk: int) -> HolderRecord | None:
        """Choose a holder with room: the owner of the chunk's share, or else the one asked for the fewest chunks.

        If the owner has no room, or cannot send the chunk, consider during seeding only sources, if one can send it.
        Otherwise consider clients, or a sample if they are many. If the owner cannot send the chunk, also consider all
        clients if none in the sample has room, and sources if no client can send the chunk. Return None if no
        considered member has room.
        """
        owner = self.able_to_send([file.shares.at(chunk).owner], file, chunk, chunk + 1)
        if owner and owner[0].has_room:
            return owner[0]
        sources = self.able_to_send(file.availability.sources, file, chunk, chunk + 1)
        if file.phase is Phase.SEEDING and sources:
            able = sources
        else:  # a source is asked only if no client can send the chunk
            names = file.availability.non_source_names()
            tried_max = self._tuning.holders_tried_max
            some = self._random.sample(names, tried_max) if len(names) > tried_max else names
            able = self.able_to_send(some, file, chunk, chunk + 1)
            if not owner and some is not names and not any(each.has_room for each in able):
                able = self.able_to_send(names, file, chunk, chunk + 1)
            if not able and not owner:
                able = sources
        return min((each for each in able if each.has_room), key=lambda holder: holder.asked_chunks, default=None)

    def able_to_send(self, names: Iterable[str], file: SharedFile, start: int, stop: int) -> list[HolderRecord]:
        """Return the holder records of the members that hold a whole range and can be asked for it.

        Args:
            names: the names of the members to consider.
            file: the file.
            start: the first chunk.
            stop: one past the last chunk.
        """
        members, all_held = self._sessions.members, file.availability.held
        found = []
        for name in names:
            held, member = all_held.get(name), members.get(name)
            if held and member is not None and member.askable and held.covers(start, stop):
                found.append(self._pending.holder_of(member))
        return found

    def able_to_answer(self, fetch: Fetch, excluded: HolderRecord | None = None) -> list[HolderRecord]:
        """Return some holders that can send the whole range of a fetch; an empty list only if there are none.

        Search a sample of the clients if they are many, then all clients, then the sources. Return the holders from the
        first of these groups that has any.

        Args:
            fetch: the fetch.
            excluded: a holder to exclude; None to exclude none.
        """
        file, names = fetch.file, fetch.file.availability.non_source_names()
        tried: list[list[str]] = [names, list(file.availability.sources)]
        if len(names) > self._tuning.holders_tried_max:
            tried.insert(0, self._random.sample(names, self._tuning.holders_tried_max))
        for some in tried:
            found = [each for each in self.able_to_send(some, file, fetch.start, fetch.stop) if each is not excluded]
            if found:
                return found
        return []

    def still_holds(self, holder: HolderRecord, fetch: Fetch) -> bool:
        """Return whether a holder that did not answer is connected and still holds the whole range of a fetch.

        Args:
            holder: the holder.
            fetch: the fetch.
        """
        held = fetch.file.availability.held.get(holder.member.name)
        return self._sessions.is_current(holder.member) and held is not None and held.covers(fetch.start, fetch.stop)
