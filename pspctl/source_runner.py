"""Run a source until the file is seeded (R1, R2)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pspctl.api import ServerApi
from pspctl.deadline import Deadline
from pspctl.outage import OutagePolicy
from pspctl.outcome import unfinished_text
from pspctl.ui.file_text import idle_texts, missing_text
from pspctl.ui.progress import Progress
from pspctl.ui.units import count_text, size_text
from pspctl.ui.views import file_view
from pspd.core.model.terms import ONE_COPY, Terms
from pspd.errors import TimedOut, WrongState
from pspd.store.source.parallel_hash import ParallelHash
from pspd.store.source.source_store import name_of
from pspd.text.plain import plain_text

if TYPE_CHECKING:  # it imports the whole client
    from pspd.daemon.source import SeedProgress

CHECK_SECONDS = 0.5
LEAVE_SECONDS = 5.0
"""How long a source that is cancelled may take to leave the network."""


@dataclass(frozen=True, slots=True)
class SeedPlan:
    """What to seed, and how.

    Attributes:
        path: the file or folder.
        name: its name in the network; None for its own.
        client_count: how many clients to wait for and to divide the file among; 0 for those that are connected.
        hold_back: hold the exchange back until `pspctl release`.
        terms: how many copies of each share to give out, and whether the source stays in the exchange.
        hashing: the digests that other processes are computing of the file.
    """

    path: Path
    name: str | None = None
    client_count: int = 0
    hold_back: bool = False
    terms: Terms = ONE_COPY
    hashing: ParallelHash | None = None

    @property
    def shown_name(self) -> str:
        """The name in the network, safe to print."""
        return plain_text(self.name or name_of(self.path))


class PartlySeeded(KeyboardInterrupt):
    """An interrupt after which clients hold some of the shares."""


class _Steps:
    """Pass the source's steps on to the progress, and remember the last one."""

    def __init__(self, outage: OutagePolicy, progress: Progress) -> None:
        """Start before the first step.

        Args:
            outage: learns when the source loses the server, and when it answers again.
            progress: shows the steps.
        """
        self.last: SeedProgress | None = None
        self.gave_shares = False
        self.outage = outage
        self._progress = progress

    def note(self, step: SeedProgress) -> None:
        """Take the next step of the source."""
        if step.phase == "reconnecting":
            self.outage.note_lost()
        else:
            self.outage.note_answer()
        self.gave_shares = step.phase == "seeding" or (self.gave_shares and step.phase != "staying")
        self.last = step
        if step.phase == "staying" and step.file is not None:
            self._progress.exchange(file_view(step.file))
        else:
            self._progress.seeding(step)


def run_source(
    api: ServerApi,
    plan: SeedPlan,
    deadline: Deadline,
    progress: Progress,
    check: Callable[[], None] = lambda: None,
) -> str:
    """Seed a file; return its id in hex once the source may leave.

    Args:
        api: the server's API; the source runs on its event loop.
        plan: what to seed.
        deadline: when to give up.
        progress: shows every step.
        check: called every `CHECK_SECONDS`; may raise an error to end the work.

    Raises:
        TimedOut: the deadline passed; says what the source was waiting for.
        PspError: as in the source.
        PartlySeeded: it was interrupted while the shares were being given out.
    """
    steps = _Steps(OutagePolicy(api.address, deadline, progress), progress)
    try:
        return api.run(_run(api.address, plan, deadline, steps, check)).hex()
    except KeyboardInterrupt as interrupt:
        if steps.gave_shares:
            raise PartlySeeded() from interrupt
        raise


async def _run(server: str, plan: SeedPlan, deadline: Deadline, steps: _Steps, check: Callable[[], None]) -> bytes:
    from pspd.daemon.source import seed  # imports the whole client: only commands that seed pay for it

    work: asyncio.Future[bytes] = asyncio.ensure_future(
        seed(
            server,
            plan.path,
            name=plan.name,
            client_count=plan.client_count,
            hold_back=plan.hold_back,
            terms=plan.terms,
            hashing=plan.hashing,
            on_progress=steps.note,
        )
    )
    try:
        while not (await asyncio.wait([work], timeout=deadline.within(CHECK_SECONDS)))[0]:
            has_passed = deadline.passed  # read before the outage is checked, whose error says more
            steps.outage.check()
            if has_passed:
                raise TimedOut(_not_seeded_text(plan, deadline, steps.last))
            _require_recipient(plan, deadline, steps.last)
            check()
        return work.result()
    finally:
        work.cancel()
        await asyncio.wait([work], timeout=LEAVE_SECONDS)
        if work.done() and not work.cancelled():
            work.exception()  # mark it as retrieved, so that asyncio does not log it


def _require_recipient(plan: SeedPlan, deadline: Deadline, step: SeedProgress | None) -> None:
    """Raise WrongState if, without a deadline, all clients for the file have been lost for a full lease."""
    if deadline.timeout_seconds is not None or step is None or step.file is None or step.file.client_count:
        return
    view = file_view(step.file)
    missing = view["missing_clients"]
    if missing and not view["declined_client_count"] and all(client["given_up"] for client in missing):
        raise WrongState(
            f"all clients of {plan.shown_name} are lost: {missing_text(view)}: start them again, then run the same"
            " command again"
        )


def _not_seeded_text(plan: SeedPlan, deadline: Deadline, step: SeedProgress | None) -> str:
    """Return the message for a file that was not seeded at the deadline: how far it is, and what to do."""
    if step is not None and step.file is not None and step.phase == "staying":
        return unfinished_text(file_view(step.file), deadline)
    match step:
        case None:
            so_far = "seeding had not begun"
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
    """Return what to do when fewer clients than `wanted_count` joined."""
    if wanted_count <= 1:
        return "start one with `pspd client`"
    option = "--replicas" if wanted_count == plan.terms.replica_count > plan.client_count else "--clients"
    return f"start more, or name fewer with {option}"
