"""Brings a file into the network: runs the source until every share is held (R1, R2)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pspctl.deadline import Deadline
from pspctl.follow import unfinished_text
from pspctl.outage import Absence
from pspctl.ui.progress import Progress, SeedStep
from pspctl.ui.tables import idle_texts, missing_text
from pspctl.ui.units import count_text, size_text
from pspctl.ui.views import file_view
from pspd.core.model.terms import ONE_COPY, Terms
from pspd.errors import TimedOut, WrongState
from pspd.host.environment import require_descriptors
from pspd.net.loop import loop_factory
from pspd.store.source.parallel_hash import ReadAhead
from pspd.store.source.source_store import own_name
from pspd.text.plain import plain_text

CHECK_SECONDS = 0.5
LEAVE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class SeedPlan:
    """What to seed, and how."""

    path: Path
    name: str | None = None
    client_count: int = 0
    hold_back: bool = False
    terms: Terms = ONE_COPY
    ahead: ReadAhead | None = None

    @property
    def shown_name(self) -> str:
        """The name under which clients show it, as a terminal may print it."""
        return plain_text(self.name or own_name(self.path))


class PartlySeeded(KeyboardInterrupt):
    """An interrupt that left a part of the shares with the clients."""


class _Steps:
    """What the source reports, on its way to the progress."""

    def __init__(self, absence: Absence, progress: Progress) -> None:
        self.last: SeedStep | None = None
        self.has_given = False
        self.absence = absence
        self._progress = progress

    def note(self, step: SeedStep) -> None:
        """Passes a step on; says so when the server was lost."""
        if step.phase == "reconnecting":
            self.absence.begin()
        else:
            self.absence.end()
        self.has_given = step.phase == "seeding" or (self.has_given and step.phase != "staying")
        self.last = step
        if step.phase == "staying" and step.file is not None:
            self._progress.exchange(file_view(step.file))
        else:
            self._progress.seeding(step)


def seed_file(
    server: str,
    plan: SeedPlan,
    deadline: Deadline,
    progress: Progress,
    check: Callable[[], None] = lambda: None,
) -> str:
    """Seeds a file; returns its id, in hex, once it is seeded and its source may go.

    Args:
        server: the server's address.
        plan: what to seed.
        deadline: until when.
        progress: is shown every step.
        check: called every half second; may raise to end the work.

    Raises:
        TimedOut: with what was being waited for.
        LimitReached: the limit on open files is too low.
        PspError: as the source raises it.
        PartlySeeded: it was interrupted while the shares were being given out.
    """
    require_descriptors()
    steps = _Steps(Absence(server, deadline, progress), progress)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        try:
            return runner.run(_seed(server, plan, deadline, steps, check)).hex()
        except KeyboardInterrupt as interrupt:
            if steps.has_given:
                raise PartlySeeded() from interrupt
            raise


async def _seed(server: str, plan: SeedPlan, deadline: Deadline, steps: _Steps, check: Callable[[], None]) -> bytes:
    from pspd.daemon.source import seed  # brings the whole client with it: only for those who seed

    work: asyncio.Future[bytes] = asyncio.ensure_future(
        seed(
            server,
            plan.path,
            name=plan.name,
            client_count=plan.client_count,
            hold_back=plan.hold_back,
            terms=plan.terms,
            ahead=plan.ahead,
            on_progress=steps.note,
        )
    )
    try:
        while not (await asyncio.wait([work], timeout=deadline.within(CHECK_SECONDS)))[0]:
            has_passed = deadline.passed  # before the other is asked, which tells more
            steps.absence.require_bearable()
            if has_passed:
                raise TimedOut(_unfinished_text(plan, deadline, steps.last))
            _require_clients(plan, deadline, steps.last)
            check()
        return work.result()
    finally:
        work.cancel()
        await asyncio.wait([work], timeout=LEAVE_SECONDS)
        if work.done() and not work.cancelled():
            work.exception()  # looked at, asyncio does not complain of it on stderr


def _require_clients(plan: SeedPlan, deadline: Deadline, step: SeedStep | None) -> None:
    """Makes sure that there are clients to seed to, or that they may still come back.

    Raises:
        WrongState: all clients have been away for a full lease, and there is no deadline until which to wait for them.
    """
    if deadline.timeout_seconds is not None or step is None or step.file is None or step.file.client_count:
        return
    view = file_view(step.file)
    missing = view["missing_clients"]
    if missing and not view["declined_client_count"] and all(client["given_up"] for client in missing):
        raise WrongState(
            f"no client is left to take {plan.shown_name}: lost are {missing_text(view)}: start them again, then run"
            " the same command again"
        )


def _unfinished_text(plan: SeedPlan, deadline: Deadline, step: SeedStep | None) -> str:
    if step is not None and step.file is not None and step.phase == "staying":
        return unfinished_text(file_view(step.file), deadline)
    match step:
        case None:
            so_far = "it had not begun"
        case _ if step.phase == "hashing":
            so_far = f"{size_text(step.done)} of {size_text(step.total)} were hashed"
        case _ if step.phase == "waiting":
            joined = f"{step.done} of {count_text(step.total, 'client')} had joined"
            so_far = f"{joined}: {_advice(plan, step.total)}"
        case _:
            idle = idle_texts(file_view(step.file)) if step.file is not None else []
            so_far = "; ".join([f"clients held {step.done} of {step.total} chunks", *idle]) + ": see `pspctl status`"
    return f"{plan.shown_name} was not seeded after {deadline.text}: {so_far}"


def _advice(plan: SeedPlan, wanted_count: int) -> str:
    """What to do when clients did not join."""
    if wanted_count <= 1:
        return "start one with `pspd client`"
    option = "--replicas" if wanted_count == plan.terms.replica_count > plan.client_count else "--clients"
    return f"start more, or name fewer with {option}"
