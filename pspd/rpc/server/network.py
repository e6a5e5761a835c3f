"""The server daemon, as the services use it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from pspd.core.model.manifest import Digest, FileId, Manifest
from pspd.core.model.parameters import Parameters
from pspd.core.model.storage import Held
from pspd.core.model.terms import Terms
from pspd.core.server.member import Member
from pspd.core.server.shared_file import SharedFile
from pspd.rpc.translate import MemberEvent, Report
from pspd.v1 import network_pb2, status_service_pb2


class Network(Protocol):
    """The server daemon, as the services use it."""

    @property
    def digest(self) -> Digest:
        """Return the digest of manifests and blocks."""

    def join(
        self,
        name: str,
        instance_id: bytes,
        *,
        source: bool,
        delivery_port: int,
        held: dict[FileId, Held],
        peer: str,
    ) -> tuple[Member, Parameters, int, int]:
        """Add a member; return it, the parameters, the data port and the lease in milliseconds."""

    def attend(self, session: int) -> AsyncIterator[MemberEvent]:
        """Yield the instructions to a member until its session ends."""

    def renew(self, session: int) -> int:
        """Renew a session's lease; return it in milliseconds."""

    def report(self, session: int, reports: Sequence[Report]) -> None:
        """Take in a member's reports."""

    @property
    def parameters(self) -> Parameters:
        """Return the protocol's parameters."""

    def leave(self, session: int) -> None:
        """End a session."""

    async def announce(
        self, manifest: Manifest, session: int, client_count: int, terms: Terms
    ) -> tuple[SharedFile, int]:
        """Wait for clients; return the file and its number of shares, 0 if it is divided already."""

    def divide(self, manifest: Manifest, session: int, hold_back: bool) -> SharedFile:
        """Assign a file's shares."""

    def release(self, file: str) -> SharedFile:
        """Start the exchange of a file."""

    def remove(self, file: str, force: bool) -> network_pb2.File:
        """Remove a file; return its last state."""

    def file_message(self, file: SharedFile) -> network_pb2.File:
        """Return the state of a file."""

    def file_messages(self, *, with_clients: bool) -> list[network_pb2.File]:
        """Return the states of all files."""

    def cache_message(self) -> network_pb2.Cache:
        """Return the state of the cache."""

    def client_messages(self) -> list[network_pb2.Client]:
        """Return all members."""

    def status(self, file: str, *, with_file_clients: bool) -> status_service_pb2.GetStatusResponse:
        """Return the state of the network, or of one file."""

    async def changed(self, at_most_seconds: float) -> None:
        """Wait until a client or a file changes its state, or for a time."""

    def clear_cache(self) -> int:
        """Drop every cached chunk that is not in use; return how many."""

    def resize_cache(self, capacity_chunks: int) -> None:
        """Set the capacity of the cache."""

    async def launch(self, count: int, directory: str) -> list[str]:
        """Start clients; return their names."""

    def stop_clients(self, names: list[str], everyone: bool, force: bool) -> list[str]:
        """Ask clients to stop; return their names."""

    def stop(self) -> None:
        """Stop the server."""
