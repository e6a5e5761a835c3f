"""A network whose source seeds contradictory digests: each piece of a block is right, the whole block is wrong."""

from __future__ import annotations

from pspd.core.effects.client import ClientEffect
from pspd.core.effects.shared import SendDatagram
from pspd.core.model.manifest import DIGEST_BYTES, Manifest
from pspd.core.model.parameters import FAST, SECOND_NS
from pspd.core.model.terms import Terms
from pspd.core.wire.datagrams import Request, decode_datagram
from pspd.sim.content import RealContent
from pspd.sim.hosts import Access, Client
from pspd.sim.observer import Observer
from pspd.sim.seeding import Seeding
from pspd.sim.world import World
from pspd.store.digests import blake3_digest

SIZE_BYTES = 2049 * 1024
"""Blocks of two chunks, of which the borders of three shares cut one."""
CUT_BLOCK = 341
LIMIT_NS = 120 * SECOND_NS
REQUESTS_MAX = 300
"""What three clients may ask in that time: after some pauses each of them asks once in five seconds."""


class RequestCount(Observer):
    """Counts the requests of all clients, and of those since the last reset."""

    def __init__(self) -> None:
        self.count = 0

    def client_did(self, client: Client, effect: ClientEffect) -> None:
        """See ``Observer``."""
        if isinstance(effect, SendDatagram) and isinstance(decode_datagram(effect.data), Request):
            self.count += 1


def contradicting(manifest: Manifest) -> Manifest:
    """The same file with another digest for one cut block."""
    offset = CUT_BLOCK * DIGEST_BYTES
    wrong = blake3_digest((b"other bytes",))
    digests = manifest.block_digests[:offset] + wrong + manifest.block_digests[offset + DIGEST_BYTES :]
    return Manifest.parse(manifest.name, manifest.size_bytes, digests, blake3_digest)


class Contradiction:
    """Three clients, the contradicting file, and a sound one."""

    def __init__(self) -> None:
        self.world = World(FAST, 64, RealContent(), seed=5)
        self.requests = RequestCount()
        self.world.observers.append(self.requests)
        for index in range(3):
            self.world.start(self.world.add_client(f"client-{index}", Access()))
        # Its source stays, so that what was refuted can be fetched again and again.
        self.wrong = Seeding(self.world, "wrong", SIZE_BYTES, 1, Access(), 3, Terms(stays=True))
        self.wrong.manifest = contradicting(self.wrong.manifest)
        self.sound = Seeding(self.world, "sound", SIZE_BYTES, 2, Access(), 3)
        for seeding in (self.wrong, self.sound):
            seeding.start()

    def all_declined(self) -> bool:
        """Whether every client has declined the contradicting file."""
        return self.wrong.file is not None and len(self.wrong.file.declined) == 3

    def sound_is_complete(self) -> bool:
        """Whether every client has the other one."""
        return self.sound.file is not None and self.sound.file.is_complete

    def run(self) -> None:
        """Runs until all is over.

        Raises:
            AssertionError: it is not over in time, or clients go on to ask for what they declined.
        """
        assert self.world.run(self.sound_is_complete, LIMIT_NS), "the sound file is not complete"
        assert self.world.run(self.all_declined, LIMIT_NS), f"not declined after {self.requests.count} requests"
        before = self.requests.count
        self.world.run(lambda: False, LIMIT_NS)
        assert self.requests.count == before, "requests for a file that is declined"

    def require_few_requests(self) -> None:
        """Runs for a while, whether or not the contradiction is proved.

        Raises:
            AssertionError: clients ask again and again for what is refuted.
        """
        self.world.run(lambda: self.requests.count > REQUESTS_MAX, LIMIT_NS)
        assert self.requests.count <= REQUESTS_MAX, f"{self.requests.count} requests in {self.world.now / SECOND_NS} s"


def main() -> None:
    """Prints what became of the two files."""
    network = Contradiction()
    network.world.run(lambda: network.all_declined() and network.sound_is_complete(), 20 * SECOND_NS)
    file = network.wrong.file
    seconds = network.world.now / SECOND_NS
    print(f"{seconds:.1f} s: {network.requests.count} requests; declined: {file.declined if file else None}")


if __name__ == "__main__":
    main()
