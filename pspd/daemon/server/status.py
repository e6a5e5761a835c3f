"""The state of the network, as the control API shows it."""

from __future__ import annotations

import time

from pspd import __version__
from pspd.core.model.file_record import Phase
from pspd.core.server.machine import ServerMachine
from pspd.core.server.shared_file import SharedFile
from pspd.daemon.server.rates import DeliveryRates, seconds_left
from pspd.errors import NotFound
from pspd.net.driver import now_ns
from pspd.rpc.server import status_messages
from pspd.v1 import network_pb2, status_service_pb2

ID_DIGITS_MIN = 4
"""The fewest digits of an id that identify a file."""
SHOWN_CHARACTERS_MAX = 300
"""The most characters of an unknown name that an error message repeats."""


class NetworkStatus:
    """The server, its cache, its clients and its files as messages; created with the server, whose uptime it measures.

    Args:
        machine: the server's protocol machine.
        data_port: the UDP and TCP port for data.
    """

    def __init__(self, machine: ServerMachine, data_port: int) -> None:
        self._machine = machine
        self._data_port = data_port
        self._started_at = time.monotonic()
        self._rates = DeliveryRates()
        self._rates.start(machine.catalogue.files.values, now_ns)

    def close(self) -> None:
        """Stop sampling rates."""
        self._rates.stop()

    @property
    def _shown_files(self) -> list[SharedFile]:
        return [file for file in self._machine.catalogue.files.values() if file.phase is not Phase.REMOVED]

    def find(self, wanted: str) -> SharedFile:
        """Return a file by its name, its id, or a unique beginning of its id.

        Raises:
            NotFound: no file matches, or several do.
        """
        files = self._shown_files
        found = [file for file in files if file.manifest.name == wanted]
        if not found and len(wanted) >= ID_DIGITS_MIN:
            found = [file for file in files if file.file_id.hex().startswith(wanted.lower())]
        if len(found) != 1:
            raise NotFound(
                f"{'no' if not found else 'more than one'} file {wanted[:SHOWN_CHARACTERS_MAX]!r} in the network:"
                " see `pspctl files`"
            )
        return found[0]

    def cache(self) -> network_pb2.Cache:
        """Return the message for the cache."""
        return status_messages.cache_to_pb(self._machine.cache)

    def clients(self) -> list[network_pb2.Client]:
        """Return the messages for all members, by name."""
        return status_messages.clients_to_pb(self._machine)

    def file(self, file: SharedFile) -> network_pb2.File:
        """Return the message for one file."""
        return self._file(file, now_ns(), with_clients=True)

    def files(self, *, with_clients: bool) -> list[network_pb2.File]:
        """Return the messages for all files, oldest first."""
        now = now_ns()
        return [self._file(file, now, with_clients=with_clients) for file in self._shown_files]

    def _file(self, file: SharedFile, now: int, *, with_clients: bool) -> network_pb2.File:
        message = status_messages.file_to_pb(self._machine, file, now, with_clients=with_clients)
        rate = self._rates.rate(file, now)
        eta = seconds_left(file, self._machine.lifecycle.accepting_clients(file), rate)
        if rate is not None:
            message.rate_bytes_per_second = rate
        if eta is not None:
            message.eta_seconds = eta
        return message

    def network(self, address: str, file: str, *, with_clients: bool) -> status_service_pb2.GetStatusResponse:
        """Return the message for the network with all its files, or with one of them.

        Args:
            address: the address of the control API.
            file: the id or name of the only file to show; empty for all files.
            with_clients: whether each file lists its clients.
        """
        if file:
            files = [self._file(self.find(file), now_ns(), with_clients=with_clients)]
        else:
            files = self.files(with_clients=with_clients)
        server = network_pb2.Server(
            address=address,
            version=__version__,
            profile=self._machine.parameters.profile,
            uptime_seconds=time.monotonic() - self._started_at,
            data_port=self._data_port,
            dropped_counts={reason.value: count for reason, count in self._machine.drop_counts.items()},
        )
        return status_service_pb2.GetStatusResponse(
            server=server, cache=self.cache(), clients=self.clients(), files=files
        )
