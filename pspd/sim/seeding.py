"""Simulates a source: it announces and divides a file, and leaves when no longer needed, as ``pspctl seed`` does."""

from __future__ import annotations

from dataclasses import dataclass

from pspd.core.model.file_record import Phase
from pspd.core.model.manifest import DEFAULT_MODE, Manifest
from pspd.core.model.parameters import MILLISECOND_NS
from pspd.core.model.terms import ONE_COPY, Terms, source_is_needed
from pspd.core.server.shared_file import SharedFile
from pspd.errors import PspError
from pspd.sim.hosts import Client, HostConditions
from pspd.sim.network import VirtualNetwork

POLL_NS = 50 * MILLISECOND_NS


@dataclass(eq=False)
class Seeding:
    """One file and its source.

    Args:
        network: the network in which the file is seeded.
        name: the file's name.
        data: the file's bytes, from ``network.content.bytes_of``; empty if the content is blank.
        size_bytes: the file's size.
        conditions: the source's impairments and rates.
        client_count: the number of clients to wait for, and to divide the file among; 0 to wait for one per replica,
            and to divide the file among all reachable clients that have sent a datagram.
        terms: the number of copies to seed, and whether the source stays.
        mode: the file's permission bits.
        hold_back: whether the exchange is held back until a release.
        share_count: the number of shares; 0 for one share for each of these clients.
        source_has_left: whether the source has left for good.

    Attributes:
        source: the source's host.
        manifest: the file's manifest, which is replaced when the source divides the file.
    """

    network: VirtualNetwork
    name: str
    data: bytes
    size_bytes: int
    conditions: HostConditions
    client_count: int
    terms: Terms = ONE_COPY
    mode: int = DEFAULT_MODE
    hold_back: bool = False
    share_count: int = 0
    source_has_left: bool = False

    def __post_init__(self) -> None:
        self._announced_in = 0
        self._divided_here = False
        digest = self.network.content.digest
        self.manifest: Manifest = Manifest.build(self.name, self.size_bytes, self._read_at, digest, mode=self.mode)
        name = f"source-{sum(client.is_source for client in self.network.clients.values())} of {self.name}"
        self.source: Client = self.network.add_client(name, self.conditions, is_source=True)

    def start(self) -> None:
        """Start the source's process."""
        self.network.start(self.source)
        self.network.after(POLL_NS, self._poll)

    @property
    def file(self) -> SharedFile | None:
        """The server's record of the file; None if the server has none or is down."""
        server = self.network.server
        return server.catalogue.files.get(self.manifest.file_id) if server is not None else None

    def _read_at(self, offset: int, length: int) -> bytes | memoryview:
        return self.network.content.read(self.data, offset, length)

    def _poll(self) -> None:
        """Leave if the source is no longer needed; otherwise take the next possible step, and poll again later."""
        source, server = self.source, self.network.server
        file = self.file
        # The server ends the session of a source that is not needed, but the event may arrive after this call.
        if file is not None and file.seeded_at is not None:
            divided, holders = self._divided_here, file.availability.min_holder_count()
            if not source_is_needed(
                self.terms, divided_here=divided, is_complete=file.is_complete, min_holder_count=holders
            ):
                self.source_has_left = True
                self.network.stop(source)
                return
        if server is not None and source.session and not source.partitioned:
            try:
                self._step(source.session)
            except PspError:
                self._announced_in = 0  # the session ended, or another source is seeding: announce again
        self.network.after(POLL_NS, self._poll)

    def _step(self, session: int) -> None:
        network, server = self.network, self.network.server_for_input()
        assert server is not None, "the caller has checked"
        catalogue = server.catalogue
        if self._announced_in != session:
            announced = catalogue.announce(self.manifest, session, self.terms)
            self._announced_in, self._divided_here = session, False
            if announced.phase is not Phase.ANNOUNCED:
                self._offer()
                catalogue.source_returned(announced, session, network.now)
        file = self.file
        if file is not None and file.phase is Phase.ANNOUNCED and file.source == self.source.name:
            count = len(server.sessions.clients_with_uplink())
            if count >= max(1, self.client_count, self.terms.replica_count):
                share_count = self.share_count or self.client_count or count
                self.manifest = self.manifest.divided(share_count, self._read_at, network.content.digest)
                self._offer()
                catalogue.divide(self.manifest, session, network.now, hold_back=self.hold_back)
                self._divided_here = True

    def _offer(self) -> None:
        self.source.source_file = self.manifest, self.data
        self.source.machine.contribute_as_source(self.manifest)
