"""``pspctl stop``: stop clients or the server."""

from __future__ import annotations

import time
from dataclasses import dataclass

import click

from pspctl.api import ServerApi
from pspctl.completion import REFUSALS_MAX
from pspctl.deadline import Deadline
from pspctl.options import Command, Settings
from pspctl.outage import OutagePolicy
from pspctl.output import show, shown_progress
from pspctl.ui.file_text import missing_clients_text, refusal_texts, release_advice
from pspctl.ui.views import FileView, client_views, file_view
from pspd.cli.arguments import Seconds
from pspd.errors import NotFound, TimedOut, Unreachable, WrongState
from pspd.text.plain import plain_text

NO_ADDRESS = "\0"
"""The value of ``--server`` without an address. It cannot be typed. An empty address can be typed, and is refused."""
DRAIN_RETRY_SECONDS = 0.2
"""The pause between two attempts to stop the clients."""
ATTEMPTS_PER_STATUS = 10
"""The number of refused attempts per check of the files: the status of all files with all clients is large."""


@click.command("stop", cls=Command)
@click.argument("names", metavar="[CLIENT]...", nargs=-1)
@click.option("--all-clients", is_flag=True, help="Stop every client, wherever it runs.")
@click.option("--force", is_flag=True, help="Stop clients even if they alone hold chunks that others need.")
@click.option("--drain", is_flag=True, help="Wait until the clients can be stopped without loss.")
@click.option("--timeout", type=Seconds(0, min_open=True), metavar="S", help="Wait at most S seconds with --drain.")
@click.option(
    "--server",
    "servers",
    is_flag=False,
    flag_value=NO_ADDRESS,
    multiple=True,
    metavar="[HOST[:PORT]]",
    help="Stop the server. Together with clients to stop, only the server's address, as in every command.",
)
@click.pass_obj
def stop(
    settings: Settings,
    names: tuple[str, ...],
    all_clients: bool,
    force: bool,
    drain: bool,
    timeout: float | None,
    servers: tuple[str, ...],
) -> None:
    """Stop the clients named, all clients, or the server.

    The server refuses to stop a client that alone holds chunks which others still need: wait with --drain, or
    lose the chunks with --force. Files stay where they are. When the server stops, clients wait for it to return.

    Examples:
      pspctl stop client-2
      pspctl stop client-2 --drain
      pspctl stop --all-clients
      pspctl stop --server
      pspctl stop --server lab0:7070
    """
    if names and all_clients:
        raise click.UsageError("name clients or give --all-clients, not both")
    stop_clients = bool(names) or all_clients
    stop_server = NO_ADDRESS in servers or (bool(servers) and not stop_clients)
    _require_consistent(stop_clients, stop_server, drain=drain, force=force, has_timeout=timeout is not None)
    address = settings.server_address(next((server for server in reversed(servers) if server != NO_ADDRESS), None))
    stopped: list[str] = []
    with ServerApi(address) as api:
        if drain:
            with shown_progress(settings) as progress:
                stopped = _Drain(OutagePolicy(api, Deadline(timeout), progress), list(names), all_clients).run()
        elif stop_clients:
            stopped = api.run(api.client.stop_clients(list(names), all_clients=all_clients, force=force))
        if stop_server:
            api.run(api.client.stop_server())
    document = {"names": stopped, "server_stopped": stop_server}
    lines = [f"{plain_text(name)} is stopping" for name in stopped]
    lines += [f"the server at {address} is stopping"] if stop_server else []
    show(settings, document, lambda: "\n".join(lines) or "no client is connected: nothing was stopped")


def _require_consistent(stop_clients: bool, stop_server: bool, *, drain: bool, force: bool, has_timeout: bool) -> None:
    """Raise a usage error if there is nothing to stop, or if options contradict each other."""
    if not stop_clients and not stop_server:
        raise click.UsageError("nothing to stop: name clients, or give --all-clients or --server")
    if has_timeout and not drain:
        raise click.UsageError("--timeout limits how long --drain waits: give both")
    if (drain or force) and not stop_clients:
        raise click.UsageError("--drain and --force are for clients: name some, or give --all-clients")
    if drain and force:
        raise click.UsageError("--drain avoids the loss that --force accepts: give one of them")


@dataclass(frozen=True, slots=True)
class _Drain:
    """Stops clients as soon as this loses no chunk that other clients need.

    Attributes:
        outage: the policy for a lost server; it has the deadline, and the progress that shows why clients still run.
        names: the names of the clients to stop; empty with `all_clients`.
        all_clients: whether to stop every client.
    """

    outage: OutagePolicy
    names: list[str]
    all_clients: bool

    def run(self) -> list[str]:
        """Wait until the clients can be stopped, and ask them to stop; return the names of the clients asked.

        Raises:
            TimedOut: the deadline passed.
            WrongState: there is no deadline, and no other client can take what these clients hold.
            NotFound: a named client was not connected at the start.
            PspError: as in `OutagePolicy.wait_and_reopen`.
        """
        refusal_count = 0
        while True:
            try:
                return self._stop(skip_gone=refusal_count > 0)
            except WrongState as error:
                self.outage.note_answer()
                if refusal_count % ATTEMPTS_PER_STATUS == 0:
                    self._check_files(error, is_first_refusal=refusal_count == 0)
                refusal_count += 1
                if self.outage.deadline.has_passed:
                    raise TimedOut(f"not drained after {self.outage.deadline.timeout_text}: {error}") from error
                time.sleep(DRAIN_RETRY_SECONDS)
            except (TimedOut, Unreachable) as error:
                self.outage.wait_and_reopen(error)

    def _stop(self, *, skip_gone: bool) -> list[str]:
        """Ask the clients to stop; return the names of the clients asked.

        With `skip_gone`, skip named clients that are no longer connected; otherwise raise NotFound for them.
        """
        api = self.outage.api
        try:
            return api.run(api.client.stop_clients(self.names, all_clients=self.all_clients))
        except NotFound:
            if not skip_gone:
                raise
        states = {client["name"]: client["state"] for client in client_views(api.run(api.client.clients()))}
        remaining = [name for name in self.names if states.get(name) == "connected"]
        return api.run(api.client.stop_clients(remaining)) if remaining else []

    def _check_files(self, refusal: WrongState, *, is_first_refusal: bool) -> None:
        """Raise WrongState if, without a deadline, the wait would never end.

        At the first refusal, show the refusal and the files that are held back.
        """
        files = [file_view(file) for file in self.outage.retry(self.outage.api.client.status).files]
        if self.outage.deadline.timeout_seconds is None:
            for file in files:
                self._require_accepting_client(file)
        if is_first_refusal:
            self.outage.progress.show_note(f"waiting: {refusal}")
            for file in filter(release_advice, files):
                self.outage.progress.show_note(f"{plain_text(file['name'])}: {release_advice(file)}")

    def _require_accepting_client(self, file: FileView) -> None:
        """Raise WrongState if no other client will get the file.

        This is so in two cases:

        - Clients to stop and other clients are connected, and all the others declined the file.
        - The file is stalled, no other client is connected, and all missing clients have been lost for a full lease.
        """
        others = [client for client in file["clients"] if not (self.all_clients or client["name"] in self.names)]
        if others and len(others) < len(file["clients"]) and all(client["refusal"] for client in others):
            reasons = "; ".join(refusal_texts(file)[:REFUSALS_MAX])
            raise WrongState(
                f"no other client accepts {plain_text(file['name'])!r}: {reasons}: resolve this, or stop with --force"
                " and lose the chunks"
            )
        missing = file["missing_clients"]
        all_given_up = missing and all(client["given_up"] for client in missing)
        if file["state"] == "stalled" and not others and all_given_up:
            raise WrongState(
                f"all other clients of {plain_text(file['name'])!r} are lost: {missing_clients_text(file)}:"
                " start them again, or stop with --force"
            )
