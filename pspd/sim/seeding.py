"""What ``pspctl seed`` does, in virtual time: announce a file, divide it, stay until it is seeded (R1, R2)."""

from __future__ import annotations

from pspd.core.model.manifest import USUAL_MODE, Manifest
from pspd.core.model.parameters import MILLISECOND_NS
from pspd.core.model.terms import ONE_COPY, Terms, source_is_needed
from pspd.core.server.file_record import Phase
from pspd.core.server.shared_file import SharedFile
from pspd.errors import PspError
from pspd.sim.hosts import Access, Client
from pspd.sim.world import World

LOOK_NS = 50 * MILLISECOND_NS


class Seeding:
    """One file's source, from its start until it may go.

    Attributes:
        source: the client that it is.
        data: the file's bytes; empty where bytes are not looked at.
        manifest: the file's manifest, as last divided.
        client_count: clients to wait for, and shares to divide into; 0 for those that are there.
        terms: how it is to be seeded.
        over: whether the source has gone.
    """

    def __init__(
        self,
        world: World,
        name: str,
        size_bytes: int,
        data_seed: int,
        access: Access,
        client_count: int,
        terms: Terms = ONE_COPY,
        of: Seeding | None = None,
        mode: int = USUAL_MODE,
    ) -> None:
        self.world = world
        self.data: bytes = of.data if of else world.content.bytes_of(size_bytes, data_seed)
        size_bytes = of.manifest.size_bytes if of else size_bytes
        mode = of.manifest.mode if of else mode
        self.manifest: Manifest = Manifest.build(name, size_bytes, self._read_at, world.content.digest, mode=mode)
        self.over = False
        self.client_count = client_count
        self.terms = terms
        self._announced_in = 0
        self._divided_here = False
        number = sum(client.source for client in world.clients.values())
        self.source: Client = world.add_client(f"source-{number} of {name}", access, source=True)

    def start(self) -> None:
        """Starts the source's process."""
        self.world.start(self.source)
        self.world.clock.after(LOOK_NS, self._look)

    @property
    def file(self) -> SharedFile | None:
        """The file as the server knows it; None if it does not, or is down."""
        server = self.world.server
        return server.catalogue.files.get(self.manifest.file_id) if server is not None else None

    def _read_at(self, offset: int, length: int) -> bytes | memoryview:
        return self.world.content.read(self.data, offset, length)

    def _look(self) -> None:
        """Does the next step, as far as it can be done now, and looks again later."""
        source, server = self.source, self.world.server
        file = self.file
        # The server lets its source go when the file is seeded; until the source has noticed, it is a member.
        if file is not None and file.seeded_at is not None and self._may_go(file):
            self.over = True
            self.world.stop(source)
            return
        if server is not None and source.session and not source.cut_off:
            try:
                self._step(source.session)
            except PspError:
                self._announced_in = 0  # not now: the session is over, or others are at it
        self.world.clock.after(LOOK_NS, self._look)

    def _may_go(self, file: SharedFile) -> bool:
        return not source_is_needed(
            stays=self.terms.stays,
            divided_here=self._divided_here,
            is_complete=file.is_complete,
            min_holder_count=file.min_holder_count(),
        )

    def _step(self, session: int) -> None:
        server = self.world.server
        assert server is not None, "the caller has looked"
        catalogue = server.catalogue
        if self._announced_in != session:
            file = catalogue.announce(self.manifest, session, self.terms)
            self._announced_in, self._divided_here = session, False
            if file.phase is not Phase.ANNOUNCED:
                self._hold()
                catalogue.source_returned(file, session, self.world.now)
        here = self.file
        if here is not None and here.phase is Phase.ANNOUNCED and here.source == self.source.name:
            count = len(catalogue.heard_names())
            if count >= max(1, self.client_count, self.terms.replica_count):
                self.manifest = self.manifest.divided(
                    self.client_count or count, self._read_at, self.world.content.digest
                )
                self._hold()
                catalogue.divide(self.manifest, session, self.world.now)
                self._divided_here = True

    def _hold(self) -> None:
        self.source.original = self.manifest, self.data
        self.source.machine.hold_whole(self.manifest)
