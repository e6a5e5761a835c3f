"""Stop clients as soon as no chunk is lost with them: ``pspctl stop --drain``."""

from __future__ import annotations

import time

from pspctl.api import ServerApi
from pspctl.deadline import Deadline
from pspctl.outage import OutagePolicy
from pspctl.outcome import REFUSALS_MAX
from pspctl.ui.file_text import hold_text, missing_text, refusal_texts
from pspctl.ui.progress import Progress
from pspctl.ui.views import FileView, file_view
from pspd.errors import NotFound, TimedOut, Unreachable, WrongState
from pspd.text.plain import plain_text
from pspd.v1 import network_pb2

RETRY_SECONDS = 0.2
"""The pause between two attempts to stop the clients."""
ATTEMPTS_PER_STATUS = 10
"""How many attempts there are per check of the files: the status of all files with all clients is large."""


class Drain:
    """Clients that are to be stopped without loss."""

    def __init__(
        self, api: ServerApi, names: list[str], deadline: Deadline, progress: Progress, *, all_clients: bool
    ) -> None:
        """Start before the first attempt.

        Args:
            api: the server's API.
            names: the clients; not used with `all_clients`.
            deadline: when to give up.
            progress: shows why the clients cannot be stopped yet.
            all_clients: stop every client.
        """
        self._api = api
        self._names = names
        self._all_clients = all_clients
        self._deadline = deadline
        self._progress = progress
        self._outage = OutagePolicy(api.address, deadline, progress)

    def run(self) -> list[str]:
        """Wait until the clients can be stopped, and stop them; return their names.

        Raises:
            TimedOut: the deadline passed.
            WrongState: no other client can take what these clients hold.
            NotFound: a client of this name was not connected at the start.
            PspError: the server was lost.
        """
        refusal_count = 0
        while True:
            try:
                return self._stop(skip_gone=refusal_count > 0)
            except WrongState as error:
                self._outage.note_answer()
                if refusal_count % ATTEMPTS_PER_STATUS == 0:
                    self._check_files(error, is_first=refusal_count == 0)
                refusal_count += 1
                if self._deadline.passed:
                    raise TimedOut(f"not drained after {self._deadline.text}: {error}") from error
                time.sleep(RETRY_SECONDS)
            except (TimedOut, Unreachable) as error:
                self._outage.wait(self._api, error)

    def _stop(self, *, skip_gone: bool) -> list[str]:
        """Try to stop the clients; with `skip_gone`, those that have left by themselves are no error."""
        try:
            return self._api.stop_clients(self._names, all_clients=self._all_clients)
        except NotFound:
            if not skip_gone:
                raise
        state = network_pb2.CLIENT_STATE_CONNECTED
        connected = {client.name for client in self._api.clients() if client.state == state}
        left = [name for name in self._names if name in connected]
        return self._api.stop_clients(left) if left else []

    def _check_files(self, refusal: WrongState, *, is_first: bool) -> None:
        """Raise WrongState if the wait cannot end; at the first refusal, note what is waited for."""
        files = [file_view(file) for file in self._outage.retry(self._api, self._api.status).files]
        for file in files:
            if self._deadline.timeout_seconds is None:
                self._require_recipient(file)
        if is_first:
            self._progress.note(f"waiting: {refusal}")
            for file in filter(hold_text, files):
                self._progress.note(f"{plain_text(file['name'])}: {hold_text(file)}")

    def _require_recipient(self, file: FileView) -> None:
        """Raise WrongState if all other clients declined the file, or have been lost for a full lease."""
        others = [client for client in file["clients"] if not (self._all_clients or client["name"] in self._names)]
        if others and len(others) < len(file["clients"]) and all(client["refusal"] for client in others):
            reasons = "; ".join(refusal_texts(file)[:REFUSALS_MAX])
            raise WrongState(
                f"no other client accepts {plain_text(file['name'])!r}: {reasons}: resolve this, or stop with --force"
                " and lose the chunks"
            )
        missing = file["missing_clients"]
        are_lost = missing and all(client["given_up"] for client in missing)
        if file["state"] == "stalled" and not others and are_lost:
            raise WrongState(
                f"all other clients of {plain_text(file['name'])!r} are lost: {missing_text(file)}: start them again,"
                " or stop with --force"
            )
