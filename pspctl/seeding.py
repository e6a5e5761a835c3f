"""Seeds a file (R1, R2): runs the source; on request, waits until the file is complete, and deletes the original."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pspctl import completion
from pspctl.api import ServerApi
from pspctl.deadline import Deadline
from pspctl.options import Settings
from pspctl.outage import OutagePolicy
from pspctl.output import show, shown_progress
from pspctl.ui.exchange import seed_text
from pspctl.ui.file_text import idle_texts, missing_chunks_texts, missing_clients_text
from pspctl.ui.units import count_text, size_text
from pspctl.ui.views import FileView, file_view, seed_view
from pspd.core.model.terms import ONE_COPY, SAFE_HOLDERS, Terms
from pspd.errors import StorageError, TimedOut, WrongState
from pspd.net.loop import loop_factory
from pspd.store.source.parallel_hash import FileState, ParallelHash
from pspd.store.source.source_store import name_of
from pspd.text.plain import plain_text

if TYPE_CHECKING:  # `pspd.daemon.source` imports the whole client
    from pspd.daemon.source import SeedProgress

CHECK_SECONDS = 0.5
"""The pause between two checks of the deadline and of the server while the source runs."""
LEAVE_SECONDS = 5.0
"""How long a source may take to leave the network after it was cancelled."""
NOT_YET_SEEDED = (None, "seeding")
"""The states of a file that is not seeded yet; None stands for a file that the network does not have."""


@dataclass(frozen=True, slots=True)
class SeedPlan:
    """A file to seed, and how to seed it.

    Attributes:
        path: the file or folder.
        name: the file's name in the network; None for the last part of `path`.
        client_count: how many clients to wait for, and how many shares to make; 0 to wait for one client per replica,
            and to make one share for each reachable client.
        hold_back: whether the exchange waits for `pspctl release`.
        waits_until_complete: whether the command waits until every client has the file.
        terms: how many clients get each share, and whether the source stays in the exchange.
        hashing: the child processes that compute the file's digests; None without such processes.
    """

    path: Path
    name: str | None = None
    client_count: int = 0
    hold_back: bool = False
    waits_until_complete: bool = False
    terms: Terms = ONE_COPY
    hashing: ParallelHash | None = None

    @property
    def shown_name(self) -> str:
        """The file's name in the network, safe to print."""
        return plain_text(self.name or name_of(self.path))


@dataclass(frozen=True, slots=True)
class _Result:
    """The result of a seeding.

    Attributes:
        file: the file at the end of the command.
        state_before: the file's state before the command; None if the network did not have the file.
        left_count: how many of the clients that ``--clients`` asked for left before the file was divided; 0 if the
            network had the file before the command, or if the command did not wait until every client had it.
    """

    file: FileView
    state_before: str | None
    left_count: int

    @property
    def was_seeded_by_command(self) -> bool:
        """Whether this command seeded the file, or finished its seeding."""
        return self.state_before in NOT_YET_SEEDED

    @property
    def reached_all(self) -> bool:
        """Whether no client declined the file, left before the division or, if the command seeded it, is missing."""
        has_missing = self.was_seeded_by_command and bool(self.file["missing_clients"])
        return not (self.file["declined_client_count"] or self.left_count or has_missing)


def seed_file(settings: Settings, plan: SeedPlan, deadline: Deadline, *, delete_source: bool) -> None:
    """Seed a file, wait for all clients if the plan says so, delete the original on request, and print the result.

    Args:
        settings: the shared options.
        plan: the file, and how to seed it.
        deadline: the deadline of the command.
        delete_source: whether to delete the original when every client, and at least two, have the file. It is not
            deleted if the network had all chunks before the command.

    Raises:
        PspError: the file could not be seeded or deleted, is stalled, or did not reach every client.
        KeyboardInterrupt: the user interrupted the command. If the file is partly seeded, the message says so.
    """
    original = FileState.of(plan.path.stat())
    with ServerApi(settings.server_address(), loop_factory()) as api, shown_progress(settings) as progress:
        outage = OutagePolicy(api, deadline, progress)
        result = _seed(plan, outage)
        if delete_source and result.reached_all:
            _require_new_copies(plan, result.state_before)
            _delete(plan.path, original, result.file["min_holder_count"])
        cache = outage.retry(api.client.cache)  # called last, to show the cache at the end
    document = seed_view(result.file, cache)
    # If the file was seeded before this command, the file's times do not belong to the command.
    show(settings, document, lambda: seed_text(document, with_times=result.was_seeded_by_command))
    _require_not_stalled(plan, result.file)
    if plan.waits_until_complete:
        _require_all_clients(plan, result, deadline, f"; {plan.path} was not deleted" if delete_source else "")


def _seed(plan: SeedPlan, outage: OutagePolicy) -> _Result:
    """Run the source; if the plan says so, wait until every client has the file; return the result."""
    api, progress = outage.api, outage.progress
    states = {view["file_id"]: view["state"] for view in map(file_view, api.run(api.client.files()))}
    try:
        file_id = run_source(plan, outage)
    except PartlySeeded as interrupt:
        text = f"{plan.shown_name} is partly seeded: run the same command again to finish"
        raise KeyboardInterrupt(text) from interrupt
    state_before = states.get(file_id)
    if state_before is not None:
        progress.show_note(_already_present_text(plan, state_before))
    if not plan.waits_until_complete:
        file = file_view(outage.retry(lambda: api.client.status(file_id)).files[0])
        progress.show_seeded(file)
        return _Result(file, state_before, left_count=0)
    policy = completion.WaitPolicy(outage.deadline, waits_for_missing=state_before in NOT_YET_SEEDED)
    file = completion.wait_until_complete(outage, file_id, policy)
    # The server does not know the names of clients that left before the division.
    left_count = max(0, plan.client_count - file["recipient_count"]) if state_before is None else 0
    return _Result(file, state_before, left_count)


class PartlySeeded(KeyboardInterrupt):
    """An interrupt while the source was giving the clients their shares."""


class _StepTracker:
    """Shows the source's steps, and remembers the last step.

    Attributes:
        last_step: the last step; None before the first.
        is_seeding: whether the source has begun to give out the shares, and has not reported that all are held.
    """

    def __init__(self, outage: OutagePolicy) -> None:
        self.last_step: SeedProgress | None = None
        self.is_seeding = False
        self._outage = outage

    def update(self, step: SeedProgress) -> None:
        """Show and remember a step of the source; record that the server is lost or has answered."""
        if step.phase == "reconnecting":
            self._outage.note_lost()
        elif step.phase != "hashing":  # the source hashes before it calls the server
            self._outage.note_answer()
        self.is_seeding = step.phase == "seeding" or (self.is_seeding and step.phase != "staying")
        self.last_step = step
        if step.phase == "staying" and step.file is not None:
            self._outage.progress.show_exchange(file_view(step.file))
        else:
            self._outage.progress.show_step(step)


def run_source(plan: SeedPlan, outage: OutagePolicy, check: Callable[[], None] = lambda: None) -> str:
    """Seed a file; return its id in hex once the source has left.

    Args:
        plan: the file, and how to seed it.
        outage: the policy for a lost server; it has the deadline, and the progress that shows every step.
        check: a function that is called every `CHECK_SECONDS`; it may raise an error to end the seeding.

    Raises:
        TimedOut: the deadline passed; the message says how far the seeding is.
        WrongState: without a deadline, all clients of the file have been lost for a full lease.
        PspError: as in `pspd.daemon.source.seed`, in `OutagePolicy.require_outage_tolerable` and in `check`.
        PartlySeeded: the user interrupted the command while the source was giving the clients their shares.
    """
    steps = _StepTracker(outage)
    try:
        file_id = outage.api.run(_run(plan, outage, steps, check)).hex()
    except KeyboardInterrupt as interrupt:
        if steps.is_seeding:
            raise PartlySeeded() from interrupt
        raise
    outage.note_answer()
    return file_id


async def _run(plan: SeedPlan, outage: OutagePolicy, steps: _StepTracker, check: Callable[[], None]) -> bytes:
    """Run the source until it has left; return the file's id. After an error, let the source leave first."""
    from pspd.daemon.source import seed  # imports the whole client, which only commands that seed need

    deadline = outage.deadline
    work: asyncio.Future[bytes] = asyncio.ensure_future(
        seed(
            outage.api.address,
            plan.path,
            name=plan.name,
            client_count=plan.client_count,
            hold_back=plan.hold_back,
            terms=plan.terms,
            hashing=plan.hashing,
            on_progress=steps.update,
        )
    )
    try:
        while not (await asyncio.wait([work], timeout=deadline.capped(CHECK_SECONDS)))[0]:
            has_passed = (
                deadline.has_passed
            )  # read first: during an outage, the next call then raises the clearer error
            outage.require_outage_tolerable()
            if has_passed:
                raise TimedOut(_not_seeded_text(plan, deadline, steps.last_step))
            _require_client(plan, deadline, steps.last_step)
            check()
        return work.result()
    finally:
        work.cancel()
        await asyncio.wait([work], timeout=LEAVE_SECONDS)
        if work.done() and not work.cancelled():
            work.exception()  # mark it as retrieved, so that asyncio does not log it


def _require_client(plan: SeedPlan, deadline: Deadline, step: SeedProgress | None) -> None:
    """Raise WrongState if, without a deadline, all clients are lost for a full lease, and none declined the file."""
    if deadline.timeout_seconds is not None or step is None or step.file is None or step.file.client_count:
        return
    view = file_view(step.file)
    missing = view["missing_clients"]
    if missing and not view["declined_client_count"] and all(client["given_up"] for client in missing):
        raise WrongState(
            f"all clients of {plan.shown_name} are lost: {missing_clients_text(view)}: start them again, then run the"
            " same command again"
        )


def _not_seeded_text(plan: SeedPlan, deadline: Deadline, step: SeedProgress | None) -> str:
    """Return the error message for a deadline that passed before the source left: how far the file is, and advice."""
    if step is not None and step.file is not None and step.phase == "staying":
        return completion.unfinished_text(file_view(step.file), deadline)
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
    return f"{plan.shown_name} was not seeded after {deadline.timeout_text}: {so_far}"


def _advice(plan: SeedPlan, wanted_count: int) -> str:
    """Return the advice for a user when fewer than `wanted_count` clients have joined."""
    if wanted_count <= 1:
        return "start one with `pspd client`"
    option = "--replicas" if wanted_count == plan.terms.replica_count > plan.client_count else "--clients"
    return f"start more, or name fewer with {option}"


def _already_present_text(plan: SeedPlan, state_before: str) -> str:
    """Return the note about a file that was already in the network, in the state `state_before`."""
    done = "its missing chunks were seeded" if _needs_chunks(state_before) else "nothing had to be seeded"
    options = {"--clients": plan.client_count, "--replicas": plan.terms.replica_count > 1}
    given = " and ".join(option for option, is_given in options.items() if is_given)
    ignored = f"; ignored {given}" if given else ""
    return f"{plan.shown_name} is already in the network: {done}{ignored}"


def _needs_chunks(state: str) -> bool:
    """Return whether a file in this state needs chunks from a source."""
    return state in ("seeding", "stalled")


def _require_not_stalled(plan: SeedPlan, view: FileView) -> None:
    """Raise WrongState if the file is stalled: a script that deletes the original on success must not lose data."""
    if view["state"] == "stalled":
        raise WrongState(
            f"{plan.shown_name} was seeded, but is stalled now: {'; '.join(missing_chunks_texts(view))}; keep the"
            " original, and seed it again if these clients do not come back"
        )


def _require_all_clients(plan: SeedPlan, result: _Result, deadline: Deadline, consequence: str) -> None:
    """Raise an error if clients declined the file, were lost, or left before the division.

    If the file was seeded before this command, lost clients cause an error only if all clients are lost.

    Args:
        plan: the file, and how to seed it.
        result: the result of the seeding.
        deadline: the deadline of the command.
        consequence: the end of the message if clients were lost during this seeding, or left before the division.
    """
    completion.require_none_declined(result.file)
    if result.was_seeded_by_command:
        completion.require_none_missing(result.file, deadline, consequence)
    completion.require_connected_client(result.file, deadline)
    if result.left_count:
        left = f"{result.left_count} of {count_text(plan.client_count, 'client')} left"
        raise WrongState(f"{left} before {plan.shown_name} was divided: see `pspctl clients`{consequence}")


def _require_new_copies(plan: SeedPlan, state_before: str | None) -> None:
    """Raise WrongState if the network had all chunks before the command: clients may have changed or removed copies."""
    if state_before is not None and not _needs_chunks(state_before):
        raise WrongState(
            f"{plan.path} was not deleted: {plan.shown_name} was in the network before, and clients may"
            " have changed or removed their copies since"
        )


def _delete(path: Path, state: FileState, holder_count: int) -> None:
    """Delete the original.

    Args:
        path: the original.
        state: the state of the original before the seeding.
        holder_count: the number of clients that hold the chunk with the fewest holders.

    Raises:
        WrongState: the original is no longer in `state`, or a chunk has fewer than `SAFE_HOLDERS` holders.
        StorageError: the original cannot be deleted.
    """
    if holder_count < SAFE_HOLDERS:
        raise WrongState(f"{path} was not deleted: some chunks are on only {count_text(holder_count, 'client')}")
    try:
        if FileState.of(path.stat()) != state:
            raise WrongState(f"{path} has changed since it was seeded and was not deleted: check its content")
        os.unlink(path)
    except OSError as error:
        raise StorageError(f"every client has {path}, but it cannot be deleted: {error.strerror}") from error
