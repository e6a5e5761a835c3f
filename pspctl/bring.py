"""What ``pspctl seed`` does once it knows what is asked: seeds, waits, and tells what came of it."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from pspctl.api import ServerApi
from pspctl.deadline import Deadline
from pspctl.follow import require_a_taker, require_all_took, require_nobody_lost, until_complete
from pspctl.options import Settings
from pspctl.outage import Absence
from pspctl.seeding import PartlySeeded, SeedPlan, seed_file
from pspctl.ui.output import printer
from pspctl.ui.progress import Progress, shown_progress
from pspctl.ui.tables import missing_texts, seed_text
from pspctl.ui.units import count_text
from pspctl.ui.views import FileView, file_view, seed_view
from pspd.core.model.terms import SAFE_HOLDERS
from pspd.errors import StorageError, WrongState
from pspd.store.source.parallel_hash import FileState


def bring(settings: Settings, plan: SeedPlan, deadline: Deadline, *, delete_source: bool) -> None:
    """Brings a file into the network, until it is seeded, or if the source stays until every client has it.

    Raises:
        PspError: it could not, or not to everybody.
        KeyboardInterrupt: it was interrupted; says so if a part of it was seeded.
    """
    state = FileState.of(plan.path.stat())
    with ServerApi(settings.server) as api, shown_progress(settings) as progress:
        known = {view["file_id"]: view["state"] for view in map(file_view, api.files())}
        try:
            file_id = seed_file(api.address, plan, deadline, progress)
        except PartlySeeded as interrupt:
            left = f"{plan.shown_name} is partly seeded: run the same command again to finish"
            raise KeyboardInterrupt(left) from interrupt
        divided_now = known.get(file_id, "seeding") == "seeding"
        if file_id in known:
            _tell_known(plan, known[file_id], progress)
        absence = Absence(api.address, deadline, progress, was_there=True)
        if plan.terms.stays:
            view = until_complete(api, file_id, deadline, progress, was_there=True, awaits_missing=divided_now)
        else:
            view = file_view(absence.through(api, lambda: api.status(file_id)).files[0])
            progress.seeded(view)
        lost_count = 0 if file_id in known else _lost_count(plan, view)
        is_missed = divided_now and bool(view["missing_clients"])
        if delete_source and not (view["declined_client_count"] or lost_count or is_missed):
            _require_fresh_copies(plan, known.get(file_id))
            _delete(plan.path, state, view["min_holder_count"])
        cache = absence.through(api, api.cache)  # last: until it is there, much may have changed
    # The times of a file that was divided before are not those of this run.
    printer(settings.output).show(seed_view(view, cache), partial(seed_text, with_times=divided_now))
    _require_all_there(plan, view)
    if plan.terms.stays:
        require_all_took(view)
        kept = f"; {plan.path} was not deleted" if delete_source else ""
        if divided_now:
            require_nobody_lost(view, deadline, kept)
        require_a_taker(view, deadline)
        if lost_count:
            lost = f"{lost_count} of {count_text(plan.client_count, 'client')} left"
            raise WrongState(f"{lost} before {plan.shown_name} was divided: see `pspctl clients`{kept}")


def _lost_count(plan: SeedPlan, view: FileView) -> int:
    """How many of the clients asked for were lost before the file was divided, and have no name for that."""
    return max(0, plan.client_count - view["recipient_count"]) if plan.terms.stays else 0


def _require_all_there(plan: SeedPlan, view: FileView) -> None:
    """Who deletes the original when this command has ended well is not to lose what a client took away since."""
    if view["state"] == "stalled":
        raise WrongState(
            f"{plan.shown_name} was seeded, but is stalled now: {'; '.join(missing_texts(view))}; keep the original,"
            " and seed it again if they do not come back"
        )


def _require_fresh_copies(plan: SeedPlan, known_state: str | None) -> None:
    """An original is deleted only if all got it just now: older copies may be gone or changed by now."""
    if known_state is not None and not _had_to_be_seeded(known_state):
        raise WrongState(
            f"{plan.path} was not deleted: {plan.shown_name} was in the network before, and what clients have of it"
            " may have been changed or removed since"
        )


def _had_to_be_seeded(state: str) -> bool:
    return state in ("seeding", "stalled")


def _tell_known(plan: SeedPlan, state: str, progress: Progress) -> None:
    done = "what it lacked was seeded" if _had_to_be_seeded(state) else "nothing had to be seeded"
    options = {"--clients": plan.client_count, "--replicas": plan.terms.replica_count > 1}
    given = " and ".join(option for option, is_given in options.items() if is_given)
    ignored = f"; {given} was ignored" if given else ""
    progress.note(f"{plan.shown_name} is already in the network: {done}{ignored}")


def _delete(path: Path, state: FileState, holder_count: int) -> None:
    """Deletes the original, unless it is no longer what the clients got, or one lost client would cost it."""
    if holder_count < SAFE_HOLDERS:
        raise WrongState(
            f"{path} was not deleted: only {count_text(holder_count, 'client')} has all of it, and may be lost"
        )
    try:
        if FileState.of(path.stat()) != state:
            raise WrongState(f"{path} has changed since it was seeded and was not deleted: see what is in it")
        os.unlink(path)
    except OSError as error:
        raise StorageError(f"every client has {path}, but it cannot be deleted: {error.strerror}") from error
