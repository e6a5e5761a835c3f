"""The cost of the parts of the data path: the codec, range sets, the cache, the store, and the two state machines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from pspd.core.cache.cache import Cache
from pspd.core.effects.server import Deliver
from pspd.core.model.manifest import CHUNK_BYTES, Manifest
from pspd.core.model.parameters import FAST, MILLISECOND_NS
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.wire.datagrams import AskedRange, Broadcast, Request, decode_datagram, encode_datagram
from pspd.core.wire.frames import Frame, decode_frame, encode_frame
from pspd.core.wire.header import Kind
from pspd.store.digests import blake3_digest
from pspd.store.files.disk import DiskStore
from tests.core.alone import Client, manifest_of
from tests.core.bench import Bench
from tests.micro.conftest import Cost

FILE = bytes(32)
RANGES = 100
FRAME = FAST.window_min_chunks // 2
"""Chunks in a frame when the window is narrowest."""
SMALL_FRAME = 8
"""Chunks in a frame that is so small that its size does not matter."""
MEMBERS = 8
ROUNDS_MAX = 256
RANGE_CHUNKS = 256


class TestCodec:
    REQUEST = Request(7, FILE, 1, 0, 2048, tuple(Range(10 * index, 10 * index + 5) for index in range(RANGES)))
    BROADCAST = Broadcast(7, FILE, 1, tuple(AskedRange(10 * index, 10 * index + 5, 9) for index in range(50)))
    FRAME = Frame(Kind.DELIVERY, 7, FILE, 0, FRAME, FRAME * CHUNK_BYTES, 3, 2)

    def test_encode_a_request(self, cost: Cost) -> None:
        cost(lambda: encode_datagram(self.REQUEST), RANGES, "range")

    def test_decode_a_request(self, cost: Cost) -> None:
        data = encode_datagram(self.REQUEST)
        cost(lambda: decode_datagram(data), RANGES, "range")

    def test_encode_a_broadcast(self, cost: Cost) -> None:
        cost(lambda: encode_datagram(self.BROADCAST), 50, "range")

    def test_decode_a_new_broadcast(self, cost: Cost) -> None:
        numbers = count()

        def next_datagram() -> tuple[bytes]:
            return (encode_datagram(Broadcast(7, FILE, next(numbers), self.BROADCAST.asked)),)

        cost(decode_datagram, 50, "range", next_datagram)

    def test_encode_and_decode_the_head_of_a_frame(self, cost: Cost) -> None:
        cost(lambda: decode_frame(encode_frame(self.FRAME)), FRAME, "chunk")


class TestRangeSets:
    @staticmethod
    def scattered() -> RangeSet:
        return RangeSet((10 * index, 10 * index + 5) for index in range(1000))

    def test_add_and_discard_in_the_middle(self, cost: Cost) -> None:
        def change(ranges: RangeSet) -> None:
            for index in range(300, 300 + RANGES):
                ranges.add(10 * index + 5, 10 * index + 7)
                ranges.discard(10 * index + 4, 10 * index + 6)

        cost(change, 2 * RANGES, "range", lambda: (self.scattered(),))

    def test_intersect(self, cost: Cost) -> None:
        one, other = self.scattered(), RangeSet((10 * index + 3, 10 * index + 8) for index in range(1000))
        cost(lambda: one.intersection(other), 1000, "range")

    def test_find_gaps(self, cost: Cost) -> None:
        ranges = self.scattered()
        cost(lambda: ranges.gaps(0, 10_000), 1000, "range")


class TestCache:
    @pytest.mark.parametrize("frame", [1, FRAME])
    def test_cache_send_and_evict_a_frame(self, cost: Cost, frame: int) -> None:
        cache = Cache(8 * frame)
        starts = count(0, frame)

        def cache_and_send() -> None:
            start = next(starts)
            stop = start + frame
            assert cache.reserve(FILE, start, stop)
            cache.commit(FILE, start, stop)
            assert cache.cached(FILE, start, stop) == [(start, stop)]
            cache.pin(FILE, start, stop)
            assert cache.views(FILE, start, stop, frame * CHUNK_BYTES)
            cache.unpin(FILE, start, stop)

        cost(cache_and_send, frame, "chunk")


class TestServer:
    def test_forward_a_frame_from_its_holder_to_all_other_members(self, cost: Cost) -> None:
        """Request, fetch, verify and deliver a frame; the next request acknowledges it."""
        bench = Bench(replace(FAST, frame_chunks=SMALL_FRAME), cache_chunks=16 * SMALL_FRAME, checked=False)
        holder, *others = (bench.join(f"m{index}") for index in range(MEMBERS))
        file = bench.exchange("f", MEMBERS * (ROUNDS_MAX * SMALL_FRAME))
        starts = count(0, SMALL_FRAME)
        delivered = dict.fromkeys((member.session for member in others), 0)

        def forward() -> None:
            start = next(starts)
            stop = start + SMALL_FRAME
            for member in others:
                ranges = (start, file.manifest.chunk_count)
                bench.ask(member, file, ranges, window_chunks=2 * SMALL_FRAME, acknowledged=delivered[member.session])
            assert bench.contribute(bench.frame(holder, file, start, stop))
            bench.pass_time(MILLISECOND_NS)
            deliveries = bench.effects(Deliver)
            assert len(deliveries) == len(others)
            for delivery in deliveries:
                delivered[delivery.session] = delivery.number
                bench.server.delivery_sent(delivery.session, delivery.number, bench.now)

        cost(forward, len(others), "delivery")


class TestClient:
    def test_receive_a_delivery_and_request_again(self, cost: Cost) -> None:
        manifest = manifest_of(64 * FRAME)

        def ready() -> tuple[Client]:
            client = Client(checked=False)
            client.assign(manifest, exchange=True)
            client.datagrams()
            return (client,)

        def receive(client: Client) -> None:
            client.deliver(manifest, 0, FRAME)
            assert client.requests()

        cost(receive, FRAME, "chunk", ready)


class TestStore:
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[DiskStore]:
        store = DiskStore(tmp_path, blake3_digest)
        yield store
        store.close()

    def test_verify_and_save(self, cost: Cost, store: DiskStore) -> None:
        data = bytes(ROUNDS_MAX * RANGE_CHUNKS * CHUNK_BYTES)

        def read_at(offset: int, length: int) -> bytes:
            return data[offset : offset + length]

        manifest = Manifest.build("f", len(data), read_at, blake3_digest).divided(1, read_at, blake3_digest)
        store.begin(manifest)
        starts = count(0, RANGE_CHUNKS)
        payload = memoryview(data)[: RANGE_CHUNKS * CHUNK_BYTES]

        def save() -> None:
            start = next(starts)
            assert (
                store.write(manifest.file_id, start, start + RANGE_CHUNKS, payload).verified.chunk_count == RANGE_CHUNKS
            )

        cost(save, RANGE_CHUNKS, "chunk")
