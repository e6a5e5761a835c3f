"""A network whose source seeds contradictory digests: both pieces of a cut block match, the whole block does not."""

from __future__ import annotations

from pspd.core.effects.client import ClientEffect
from pspd.core.effects.shared import SendDatagram
from pspd.core.model.manifest import DIGEST_BYTES, Manifest
from pspd.core.model.parameters import FAST, SECOND_NS
from pspd.core.model.terms import Terms
from pspd.core.wire.datagrams import Request, decode_datagram
from pspd.sim.content import Content
from pspd.sim.hosts import Client, HostConditions
from pspd.sim.network import VirtualNetwork
from pspd.sim.observer import Observer
from pspd.sim.seeding import Seeding
from pspd.store.digests import blake3_digest

SIZE_BYTES = 2049 * 1024
"""A file of this size has blocks of two chunks. The boundaries of three shares cut one block."""
CUT_BLOCK = 341
LIMIT_NS = 120 * SECOND_NS
REQUESTS_MAX = 300
"""The most requests of three clients in LIMIT_NS. After some backoff, each client sends one request in five seconds."""


class RequestCount(Observer):
    """Counts the requests of all clients."""

    def __init__(self) -> None:
        self.count = 0

    def on_client_effect(self, client: Client, effect: ClientEffect) -> None:
        """See ``Observer``."""
        if isinstance(effect, SendDatagram) and isinstance(decode_datagram(effect.data), Request):
            self.count += 1


def with_wrong_digest(manifest: Manifest) -> Manifest:
    """Return a manifest with a wrong digest for one cut block."""
    offset = CUT_BLOCK * DIGEST_BYTES
    wrong = blake3_digest((b"other bytes",))
    digests = manifest.block_digests[:offset] + wrong + manifest.block_digests[offset + DIGEST_BYTES :]
    return Manifest.parse(manifest.name, manifest.size_bytes, digests, blake3_digest)


class Contradiction:
    """Three clients, a file with contradictory digests, and a valid one."""

    def __init__(self) -> None:
        self.network = VirtualNetwork(FAST, 64, Content(), seed=5)
        self.requests = RequestCount()
        self.network.observers.append(self.requests)
        for index in range(3):
            self.network.start(self.network.add_client(f"client-{index}", HostConditions()))
        # The source of the contradictory file stays, so that clients could fetch refuted units again and again.
        data = [self.network.content.bytes_of(SIZE_BYTES, seed) for seed in (1, 2)]
        self.contradictory = Seeding(
            self.network, "wrong", data[0], SIZE_BYTES, HostConditions(), 3, Terms(source_stays=True)
        )
        self.contradictory.manifest = with_wrong_digest(self.contradictory.manifest)
        self.valid = Seeding(self.network, "valid", data[1], SIZE_BYTES, HostConditions(), 3)
        for seeding in (self.contradictory, self.valid):
            seeding.start()

    def all_declined(self) -> bool:
        """Return whether every client has declined the contradictory file."""
        return self.contradictory.file is not None and len(self.contradictory.file.recipients.decline_reasons) == 3

    def valid_is_complete(self) -> bool:
        """Return whether every client has the valid file."""
        return self.valid.file is not None and self.valid.file.is_complete

    def run(self) -> None:
        """Run until one file is declined and the other one is complete. Then no client may request the declined file.

        Raises:
            AssertionError: this takes too long, or clients request a declined file.
        """
        assert self.network.run(self.valid_is_complete, LIMIT_NS), "the valid file is not complete"
        assert self.network.run(self.all_declined, LIMIT_NS), f"not declined after {self.requests.count} requests"
        before = self.requests.count
        self.network.run(lambda: False, LIMIT_NS)
        assert self.requests.count == before, "clients request a declined file"

    def require_few_requests(self) -> None:
        """Run for a while, whether or not the contradiction is proved.

        Raises:
            AssertionError: clients send too many requests for refuted units.
        """
        self.network.run(lambda: self.requests.count > REQUESTS_MAX, LIMIT_NS)
        assert self.requests.count <= REQUESTS_MAX, f"{self.requests.count} requests"


def main() -> None:
    """Print the outcome for the two files."""
    case = Contradiction()
    case.network.run(lambda: case.all_declined() and case.valid_is_complete(), 20 * SECOND_NS)
    reasons = case.contradictory.file and case.contradictory.file.recipients.decline_reasons
    seconds = case.network.now / SECOND_NS
    print(f"{seconds:.1f} s: {case.requests.count} requests; declined: {reasons}")


if __name__ == "__main__":
    main()
