"""A source: announces a file, divides it, and stays until it is seeded (R1, R2), as ``pspctl seed`` does."""

from __future__ import annotations

from pspd.core.model.file_record import Phase
from pspd.core.model.manifest import USUAL_MODE, Manifest
from pspd.core.model.parameters import MILLISECOND_NS
from pspd.core.model.terms import ONE_COPY, Terms, source_is_needed
from pspd.core.server.shared_file import SharedFile
from pspd.errors import PspError
from pspd.sim.hosts import Access, Client
from pspd.sim.network import VirtualNetwork

POLL_NS = 50 * MILLISECOND_NS


class Seeding:
    """One file and its source.

    Args:
        network: where the file is seeded.
        name: the file's name.
        data: the file's bytes, from ``network.content.bytes_of``; empty where content is blank.
        size_bytes: the file's size.
        access: the source's link.
        client_count: how many clients to wait for and divide the file among; 0 for those that are connected.
        terms: how many copies to seed, and whether the source stays.
        mode: the file's permissions.
        hold: whether the exchange waits for a release.
        share_count: how many shares to divide the file into; 0 for as many as clients.

    Attributes:
        source: the source's host.
        data: the file's bytes.
        manifest: the file's manifest, as last divided.
        client_count: may be lowered when clients leave.
        terms: may be lowered when clients leave.
        over: whether the source has left.
    """

    def __init__(
        self,
        network: VirtualNetwork,
        name: str,
        data: bytes,
        size_bytes: int,
        access: Access,
        client_count: int,
        terms: Terms = ONE_COPY,
        *,
        mode: int = USUAL_MODE,
        hold: bool = False,
        share_count: int = 0,
    ) -> None:
        self.data = data
        self.client_count = client_count
        self.terms = terms
        self.over = False
        self._network = network
        self._hold = hold
        self._share_count = share_count
        self._announced_in = 0
        self._divided_here = False
        self.manifest: Manifest = Manifest.build(name, size_bytes, self._read_at, network.content.digest, mode=mode)
        number = sum(client.source for client in network.clients.values())
        self.source: Client = network.add_client(f"source-{number} of {name}", access, source=True)

    def start(self) -> None:
        """Start the source's process."""
        self._network.start(self.source)
        self._network.clock.after(POLL_NS, self._poll)

    @property
    def file(self) -> SharedFile | None:
        """The server's record of the file; None if it has none, or is down."""
        server = self._network.server
        return server.catalogue.files.get(self.manifest.file_id) if server is not None else None

    def _read_at(self, offset: int, length: int) -> bytes | memoryview:
        return self._network.content.read(self.data, offset, length)

    def _poll(self) -> None:
        """Take the next possible step now, and poll again later."""
        source, server = self.source, self._network.server
        file = self.file
        # The server ends the source's session once the file is seeded; the source may learn of it later.
        if file is not None and file.seeded_at is not None and self._may_leave(file):
            self.over = True
            self._network.stop(source)
            return
        if server is not None and source.session and not source.partitioned:
            try:
                self._step(source.session)
            except PspError:
                self._announced_in = 0  # the session ended, or another source is seeding: retry
        self._network.clock.after(POLL_NS, self._poll)

    def _may_leave(self, file: SharedFile) -> bool:
        return not source_is_needed(
            stays=self.terms.stays,
            divided_here=self._divided_here,
            is_complete=file.is_complete,
            min_holder_count=file.availability.min_holder_count(),
        )

    def _step(self, session: int) -> None:
        network, server = self._network, self._network.server
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
            count = len(server.sessions.heard_names())
            if count >= max(1, self.client_count, self.terms.replica_count):
                share_count = self._share_count or self.client_count or count
                self.manifest = self.manifest.divided(share_count, self._read_at, network.content.digest)
                self._offer()
                catalogue.divide(self.manifest, session, network.now, hold_back=self._hold)
                self._divided_here = True

    def _offer(self) -> None:
        self.source.source_file = self.manifest, self.data
        self.source.machine.hold_whole(self.manifest)
