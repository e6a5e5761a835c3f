"""What to do when a contribution does not come: ask again, ask others, or give up (R11)."""

from __future__ import annotations

from pspd.core.effects.server import CloseLink
from pspd.core.model.tuning import ServerTuning
from pspd.core.server.demand import Demand
from pspd.core.server.fetch import Fetch
from pspd.core.server.holders import Holders
from pspd.core.server.pending import Pending
from pspd.core.server.work_set import WorkSet


class Retransmitter:
    """Sees to the fetches whose answers are overdue.

    Args:
        pending: the fetches.
        holders: who can answer.
        demand: who still wants them.
        work: takes the effects.
        tuning: how often to ask.
    """

    def __init__(self, pending: Pending, holders: Holders, demand: Demand, work: WorkSet, tuning: ServerTuning) -> None:
        self._pending = pending
        self._holders = holders
        self._demand = demand
        self._work = work
        self._tuning = tuning

    def handle_timeout(self, now: int) -> None:
        """Ask again for what did not come, first of one holder, then of all."""
        for fetch in self._pending.expired(now):
            if fetch.sender is not None:
                self._work.emit(CloseLink(fetch.sender))
                self._pending.await_rest(fetch, now)
            elif self._is_answering(fetch, now):
                self._pending.wait(fetch, now)
            elif fetch.tries >= self._tuning.fetch_tries_max or not self._is_worthwhile(fetch):
                self._pending.give_up(fetch)
                self._work.serve_waiters(fetch.file.file_id)
            else:
                if fetch.tries > 0:
                    fetch.file.traffic.count_retransmit()
                self._pending.ask_again(self._ask_otherwise(fetch))

    def _is_worthwhile(self, fetch: Fetch) -> bool:
        """Whether a client wants some of it, and a member holds some: else it takes room in the cache from others."""
        start, stop = fetch.start, fetch.stop
        is_wanted = self._demand.of_file(fetch.file.file_id).is_wanted_by_any(start, stop)
        return is_wanted and fetch.file.availability.available.overlaps(start, stop)

    def _is_answering(self, fetch: Fetch, now: int) -> bool:
        """Whether the holder named is busy with what it was asked before: it answers in that order."""
        holder = fetch.holder
        if holder is None or fetch.lost_by_reordering or not holder.member.has_data_path:
            return False
        is_sending = any(other.sender == holder.member.session for other in holder.asked)
        return is_sending or now - holder.heard_at < self._pending.timeout_ns(fetch)

    def _ask_otherwise(self, fetch: Fetch) -> list[Fetch]:
        """Name a holder again, or cut the fetch into units. Return the fetches to broadcast."""
        silent = self._pending.timed_out(fetch)
        if silent is None:
            is_early = fetch.tries < self._tuning.named_tries_max
            return [fetch] if is_early else self._pending.cut_into_units(fetch)
        others = self._holders.of_all(fetch, but=silent)
        is_named = bool(others) and fetch.tries < self._tuning.named_tries_max
        if is_named or (not others and self._holders.still_holds(silent, fetch)):
            self._pending.assign(fetch, others or [silent])
            return [fetch]
        pieces = self._pending.cut_into_units(fetch)
        for piece in pieces if not others else ():
            self._pending.assign(piece, self._holders.of_all(piece))  # no one has all of it: some may have parts
        return pieces
