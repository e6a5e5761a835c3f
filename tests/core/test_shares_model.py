"""The shares of a file, compared with a list."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pspd.core.model.manifest import CHUNK_BYTES, Manifest
from pspd.core.model.ranges import Range
from pspd.core.server.shares import Shares
from pspd.core.server.work_set import WorkSet
from pspd.store.digests import blake3_digest
from tests.core.samples import sample_bytes

CLIENTS = ["a", "b", "c", "d"]
FILE = sample_bytes(3 * CHUNK_BYTES)

names = st.sampled_from(CLIENTS)
groups = st.lists(names, unique=True)


def read_at(offset: int, length: int) -> bytes:
    return FILE[offset : offset + length]


class SharesMachine(RuleBasedStateMachine):
    """Applies the same operations to the shares and to a list of owners and acknowledgements.

    There may be more shares than chunks, and more replicas than connected clients.
    """

    @initialize(share_count=st.integers(1, 5), replica_count=st.integers(1, 3))
    def divide(self, share_count: int, replica_count: int) -> None:
        plain = Manifest.build("f", len(FILE), read_at, blake3_digest)
        manifest = plain.divided(share_count, read_at, blake3_digest)
        self.ranges = [manifest.share(index) for index in range(share_count)] * replica_count
        self.owners = [
            CLIENTS[(index + replica) % len(CLIENTS)]
            for replica in range(replica_count)
            for index in range(share_count)
        ]
        self.held = [span.start >= span.stop for span in self.ranges]
        self.is_seeded = False
        self.shares = Shares(manifest.file_id, WorkSet())
        self.shares.create(manifest, self.owners)

    @rule(name=names)
    def acknowledge(self, name: str) -> None:
        self.shares.acknowledge(name)
        self.held = [held or owner == name for held, owner in zip(self.held, self.owners, strict=True)]

    @rule(name=names)
    def clear_acks(self, name: str) -> None:
        self.shares.clear_acks(name)
        if not self.is_seeded:
            for index, span in enumerate(self.ranges):
                if self.owners[index] == name and span.start < span.stop:
                    self.held[index] = False

    @precondition(lambda self: self.shares.all_held)
    @rule()
    def end_seeding(self) -> None:
        self.shares.end_seeding()
        self.is_seeded = True

    @rule(present=groups, data=st.data())
    def reassign(self, present: list[str], data: st.DataObject) -> None:
        preferred = data.draw(st.lists(st.sampled_from(present), unique=True)) if present else []
        orphans = [
            index
            for index, owner in enumerate(self.owners)
            if preferred and owner not in present and not self.held[index]
        ]
        kept = [owner for index, owner in enumerate(self.owners) if index not in orphans]
        new_owners = self.shares.reassign(present, preferred)
        owners = list(self.shares.owners)
        assert [owner for index, owner in enumerate(owners) if index not in orphans] == kept
        for index in orphans:
            same_range = {owners[other] for other, span in enumerate(self.ranges) if span == self.ranges[index]}
            assert owners[index] in preferred or (owners[index] == "" and set(preferred) <= same_range)
        assert set(new_owners) == {owners[index] for index in orphans} - {""}
        self.owners = owners

    @invariant()
    def agrees_with_the_model(self) -> None:
        self.shares.check()
        assert list(self.shares.owners) == self.owners
        assert [Range(share.start, share.stop) for share in self.shares.all] == self.ranges
        unheld = {owner for owner, held in zip(self.owners, self.held, strict=True) if owner and not held}
        assert self.shares.all_held == (not unheld)
        assert sorted(self.shares.unheld_owners()) == sorted(unheld)
        for name in CLIENTS:
            given = [span for span, owner in zip(self.ranges, self.owners, strict=True) if owner == name]
            assert list(self.shares.ranges_of(name)) == sorted(span for span in given if span.start < span.stop)

    @invariant()
    def no_client_owns_a_range_twice(self) -> None:
        given = zip(self.ranges, self.owners, strict=True)
        counts = Counter((span, owner) for span, owner in given if owner and span.start < span.stop)
        assert max(counts.values(), default=1) == 1

    @invariant()
    def each_chunk_is_in_one_share(self) -> None:
        for chunk in range(len(FILE) // CHUNK_BYTES):
            share = self.shares.at(chunk)
            assert share.start <= chunk < share.stop


TestSharesAgainstModel = SharesMachine.TestCase
TestSharesAgainstModel.settings = settings(max_examples=100, stateful_step_count=30, deadline=None, derandomize=True)
