"""What ``pspctl seed`` does after its command line is parsed: seed, wait, print the answer, delete the original."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pspctl.api import ServerApi
from pspctl.completion import Goal, wait_until_complete
from pspctl.deadline import Deadline
from pspctl.options import Settings
from pspctl.outage import OutagePolicy
from pspctl.outcome import require_none_declined, require_none_missing, require_recipient
from pspctl.output import show, shown_progress
from pspctl.source_runner import PartlySeeded, SeedPlan, run_source
from pspctl.ui.exchange import seed_text
from pspctl.ui.file_text import missing_texts
from pspctl.ui.progress import Progress
from pspctl.ui.units import count_text
from pspctl.ui.views import FileView, file_view, seed_view
from pspd.core.model.terms import SAFE_HOLDERS
from pspd.errors import StorageError, WrongState
from pspd.net.loop import loop_factory
from pspd.store.source.parallel_hash import FileState

DIVIDING = (None, "seeding")
"""The states in which the network had a file before, if this run divided it; None if it did not have it."""


@dataclass(frozen=True, slots=True)
class _Result:
    """What a run came to.

    Attributes:
        file: the file at the end.
        state_before: its state before the run; None if the network did not have it.
        left_count: how many clients that were waited for left before the file was divided.
    """

    file: FileView
    state_before: str | None
    left_count: int

    @property
    def divided_now(self) -> bool:
        """Whether this run divided the file."""
        return self.state_before in DIVIDING

    @property
    def reached_all(self) -> bool:
        """Whether no client declined the file, was lost or left."""
        is_missed = self.divided_now and bool(self.file["missing_clients"])
        return not (self.file["declined_client_count"] or self.left_count or is_missed)


def seed_file(settings: Settings, plan: SeedPlan, deadline: Deadline, *, delete_source: bool) -> None:
    """Seed a file; if the plan says so, wait until every client has it.

    Args:
        settings: the shared options.
        plan: what to seed.
        deadline: when to give up.
        delete_source: delete the original when every client has the file.

    Raises:
        PspError: the file could not be seeded, or did not reach every client.
        KeyboardInterrupt: the user interrupted it; says so if the file is partly seeded.
    """
    original = FileState.of(plan.path.stat())
    with ServerApi(settings.server, loop_factory()) as api, shown_progress(settings) as progress:
        outage = OutagePolicy(api.address, deadline, progress, was_reached=True)
        result = _seed(api, plan, deadline, progress, outage)
        if delete_source and result.reached_all:
            _require_fresh_copies(plan, result.state_before)
            _delete(plan.path, original, result.file["min_holder_count"])
        cache = outage.retry(api, api.cache)  # last: the wait may have been long
    answer = seed_view(result.file, cache)
    # The times of a file that was divided before are not those of this run.
    show(settings, answer, lambda: seed_text(answer, with_times=result.divided_now))
    _require_all_chunks(plan, result.file)
    if plan.terms.stays:
        _require_all_clients(plan, result, deadline, f"; {plan.path} was not deleted" if delete_source else "")


def _seed(api: ServerApi, plan: SeedPlan, deadline: Deadline, progress: Progress, outage: OutagePolicy) -> _Result:
    """Run the source, then wait for the clients if the plan says so."""
    states = {view["file_id"]: view["state"] for view in map(file_view, api.files())}
    try:
        file_id = run_source(api, plan, deadline, progress)
    except PartlySeeded as interrupt:
        text = f"{plan.shown_name} is partly seeded: run the same command again to finish"
        raise KeyboardInterrupt(text) from interrupt
    state_before = states.get(file_id)
    if state_before is not None:
        progress.note(_known_text(plan, state_before))
    if not plan.terms.stays:
        file = file_view(outage.retry(api, lambda: api.status(file_id)).files[0])
        progress.seeded(file)
        return _Result(file, state_before, left_count=0)
    goal = Goal(deadline, awaits_missing=state_before in DIVIDING)
    file = wait_until_complete(api, file_id, goal, progress, was_reached=True)
    # The server does not know the names of clients that left before the division.
    left_count = max(0, plan.client_count - file["recipient_count"]) if state_before is None else 0
    return _Result(file, state_before, left_count)


def _known_text(plan: SeedPlan, state_before: str) -> str:
    """Return the note about a file that the network already had, in this state."""
    done = "its missing chunks were seeded" if _lacked_chunks(state_before) else "nothing had to be seeded"
    options = {"--clients": plan.client_count, "--replicas": plan.terms.replica_count > 1}
    given = " and ".join(option for option, is_given in options.items() if is_given)
    ignored = f"; {given} was ignored" if given else ""
    return f"{plan.shown_name} is already in the network: {done}{ignored}"


def _lacked_chunks(state: str) -> bool:
    return state in ("seeding", "stalled")


def _require_all_chunks(plan: SeedPlan, view: FileView) -> None:
    """Raise WrongState if the file is stalled: a caller that deletes the original on success must not lose data."""
    if view["state"] == "stalled":
        raise WrongState(
            f"{plan.shown_name} was seeded, but is stalled now: {'; '.join(missing_texts(view))}; keep the original,"
            " and seed it again if these clients do not come back"
        )


def _require_all_clients(plan: SeedPlan, result: _Result, deadline: Deadline, kept: str) -> None:
    """Raise an error if clients declined the file, were lost, or left before the division."""
    require_none_declined(result.file)
    if result.divided_now:
        require_none_missing(result.file, deadline, kept)
    require_recipient(result.file, deadline)
    if result.left_count:
        left = f"{result.left_count} of {count_text(plan.client_count, 'client')} left"
        raise WrongState(f"{left} before {plan.shown_name} was divided: see `pspctl clients`{kept}")


def _require_fresh_copies(plan: SeedPlan, state_before: str | None) -> None:
    """Raise WrongState if clients had the file before: they may have changed or removed their copies since."""
    if state_before is not None and not _lacked_chunks(state_before):
        raise WrongState(
            f"{plan.path} was not deleted: {plan.shown_name} was in the network before, and clients may"
            " have changed or removed their copies since"
        )


def _delete(path: Path, state: FileState, holder_count: int) -> None:
    """Delete the original, unless it was changed since `state`, or too few clients hold every chunk."""
    if holder_count < SAFE_HOLDERS:
        raise WrongState(
            f"{path} was not deleted: only {count_text(holder_count, 'client')} has all of it, and may be lost"
        )
    try:
        if FileState.of(path.stat()) != state:
            raise WrongState(f"{path} has changed since it was seeded and was not deleted: check its content")
        os.unlink(path)
    except OSError as error:
        raise StorageError(f"every client has {path}, but it cannot be deleted: {error.strerror}") from error
