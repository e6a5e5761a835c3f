"""The state that a network must reach after all faults: every remaining client has every file."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pspd.core.model.manifest import DEFAULT_MODE
from pspd.core.model.terms import ONE_COPY, Terms
from pspd.sim.checks import Checks
from pspd.sim.hosts import Client, HostConditions
from pspd.sim.network import VirtualNetwork
from pspd.sim.paths import Impairments
from pspd.sim.seeding import Seeding


@dataclass(slots=True, eq=False)
class LivenessGoal:
    """The clients that must get files, and the files.

    Args:
        network: the network.
        checks: the checks, which are told of each seeding.
        impairments: the impairments on the path of a source that seeds a file again.
        clients: the clients that have not left for good.
        seedings: all seedings so far.
    """

    network: VirtualNetwork
    checks: Checks
    impairments: Impairments
    clients: list[Client] = field(default_factory=list)
    seedings: list[Seeding] = field(default_factory=list)

    def add_client(self, conditions: HostConditions) -> None:
        """Add a client that is not running yet."""
        self.clients.append(self.network.add_client(f"client-{len(self.network.clients)}", conditions))

    def seed(
        self,
        name: str,
        data: bytes,
        conditions: HostConditions,
        client_count: int,
        terms: Terms = ONE_COPY,
        mode: int = DEFAULT_MODE,
    ) -> None:
        """Start a source that seeds a file.

        Args:
            name: the file's name.
            data: the file's bytes.
            conditions: the source's impairments and rates.
            client_count: the number of clients that the source waits for; 0 for all reachable clients.
            terms: the number of copies to seed, and whether the source stays.
            mode: the file's permission bits.
        """
        seeding = Seeding(self.network, name, data, len(data), conditions, client_count, terms, mode=mode)
        self.seedings.append(seeding)
        self.checks.seedings[seeding.manifest.file_id] = seeding
        seeding.start()

    def seed_again(self, lost: Seeding) -> None:
        """Seed a file again, from a new source."""
        manifest = lost.manifest
        self.seed(manifest.name, lost.data, HostConditions(self.impairments), 0, mode=manifest.mode)

    def leave(self, client: Client) -> None:
        """Let a client leave for good; sources no longer wait for it."""
        self.clients.remove(client)
        self.network.stop(client)
        count = len(self.clients)
        for seeding in self.seedings:
            seeding.client_count = min(seeding.client_count, count)
            seeding.terms = replace(seeding.terms, replica_count=min(seeding.terms.replica_count, count))

    def has_left(self, member: Client) -> bool:
        """Return whether a client or source has left for good."""
        if member.is_source:
            return any(seeding.source_has_left and seeding.source is member for seeding in self.seedings)
        return member not in self.clients

    def unrecoverable(self) -> list[Seeding]:
        """Return the seedings of the files that the network cannot complete without a new source."""
        active = {seeding.manifest.file_id for seeding in self.seedings if not seeding.source_has_left}
        return [
            seeding
            for seeding in self.seedings
            if seeding.manifest.file_id not in active and (seeding.file is None or seeding.file.is_stalled)
        ]

    def is_reached(self) -> bool:
        """Return whether all sources have left, all clients have all files, and the server knows no incomplete file."""
        if not all(each.source_has_left and (each.file is None or each.file.is_complete) for each in self.seedings):
            return False
        return all(_has_file(client, seeding) for seeding in self.seedings for client in self.clients)

    def missing(self) -> list[str]:
        """Return a line for each source that has not left, and for each file that a client does not have.

        If there are none, return one line, which says that the server does not report the files as complete.
        """
        found = []
        for seeding in self.seedings:
            file = seeding.file
            state = "unknown" if file is None else f"{file.phase.value}{' stalled' if file.is_stalled else ''}"
            if not seeding.source_has_left:
                found.append(f"{seeding.source.name} has not left")
            for client in self.clients:
                if not _has_file(client, seeding):
                    held = client.store.known().get(seeding.manifest.file_id)
                    missing = held.verified.gaps(0, seeding.manifest.chunk_count) if held else "all"
                    found.append(f"{client.name} does not hold {missing} of {seeding.manifest.name} ({state})")
        return found or ["the server does not report the files as complete"]


def _has_file(client: Client, seeding: Seeding) -> bool:
    held = client.store.known().get(seeding.manifest.file_id)
    return held is not None and held.complete
