"""The cache, compared with a simple model that has one entry per chunk."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pspd.core.cache.cache import Cache
from pspd.core.model.manifest import CHUNK_BYTES
from pspd.core.model.ranges import Range
from pspd.errors import LimitReached

A, B = b"a" * 32, b"b" * 32
FILES = (A, B)
LAST = 24

Chunk = tuple[bytes, int]
Span = tuple[bytes, int, int]

files = st.sampled_from(FILES)
starts = st.integers(0, LAST - 1)
counts = st.integers(1, 12)


def content_of(file_id: bytes, chunk: int) -> bytes:
    return bytes([file_id[0], 1 + chunk]) * (CHUNK_BYTES // 2)


def free_memory_is_zero(cache: Cache) -> bool:
    """Return whether all free slots hold zeros."""
    arena = cache._arena
    slots = [slot for start, stop in arena.free_slots for slot in range(start, stop)]
    return all(arena.view(slot, 1) == bytes(CHUNK_BYTES) for slot in slots)


def receive(cache: Cache, file_id: bytes, start: int, stop: int) -> None:
    """Write the content of a reserved range into its slots."""
    data = b"".join(content_of(file_id, chunk) for chunk in range(start, stop))
    offset = 0
    for view in cache.views(file_id, start, stop, len(data)):
        view[:] = data[offset : offset + len(view)]
        offset += len(view)
    assert offset == len(data)


def hold(cache: Cache, file_id: bytes, start: int, stop: int) -> None:
    assert cache.reserve(file_id, start, stop)
    receive(cache, file_id, start, stop)
    cache.commit(file_id, start, stop)


def cached_chunks(cache: Cache, file_id: bytes) -> list[int]:
    return [chunk for span in cache.cached(file_id, 0, LAST + 100) for chunk in range(*span)]


class Model:
    """LRU over single chunks: a list of the cached ones, least recently read first."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.reserved: set[Chunk] = set()
        self.cached: list[Chunk] = []
        self.pins: dict[Chunk, int] = {}
        self.high_water = 0
        self.evictions = 0
        self.misses = 0

    @property
    def used(self) -> int:
        return len(self.reserved) + len(self.cached)

    @property
    def fixed(self) -> int:
        return len(self.reserved) + len(self.pins)

    def reserve(self, chunks: list[Chunk]) -> bool:
        if len(chunks) > self.capacity - self.fixed:
            return False
        self.shrink_to(self.capacity - len(chunks))
        self.reserved.update(chunks)
        self.misses += len(chunks)
        self.high_water = max(self.high_water, self.used)
        return True

    def shrink_to(self, used: int) -> None:
        for chunk in self.cached.copy():
            if self.used > used and chunk not in self.pins:
                self.cached.remove(chunk)
                self.evictions += 1

    def drop(self, chunks: list[Chunk]) -> int:
        dropped = [chunk for chunk in chunks if chunk in self.cached and chunk not in self.pins]
        for chunk in dropped:
            self.cached.remove(chunk)
        return len(dropped)

    def pin(self, chunk: Chunk) -> None:
        self.cached.remove(chunk)
        self.cached.append(chunk)
        self.pins[chunk] = self.pins.get(chunk, 0) + 1

    def unpin(self, chunk: Chunk) -> None:
        self.pins[chunk] -= 1
        if self.pins[chunk] == 0:
            del self.pins[chunk]


class CacheMachine(RuleBasedStateMachine):
    """Applies the same operations to the cache and to the model, and compares them."""

    @initialize(capacity=st.integers(1, 20))
    def begin(self, capacity: int) -> None:
        self.cache = Cache(capacity)
        self.model = Model(capacity)
        self.reservations: list[Span] = []
        self.pinned: list[tuple[Span, list[memoryview]]] = []

    @rule(file_id=files, start=starts, count=counts)
    def reserve(self, file_id: bytes, start: int, count: int) -> None:
        in_use = {chunk for used in (self.model.reserved, self.model.cached) for f, chunk in used if f == file_id}
        stop = min([start + count, LAST, *(chunk for chunk in in_use if chunk >= start)])
        if start == stop:
            return
        chunks = [(file_id, chunk) for chunk in range(start, stop)]
        reserved = self.cache.reserve(file_id, start, stop)
        assert reserved == self.model.reserve(chunks)
        if reserved:
            receive(self.cache, file_id, start, stop)
            self.reservations.append((file_id, start, stop))

    @precondition(lambda self: self.reservations)
    @rule(data=st.data(), good=st.booleans())
    def commit_or_release_part_of_a_reservation(self, data: st.DataObject, good: bool) -> None:
        file_id, start, stop = self.reservations.pop(data.draw(st.integers(0, len(self.reservations) - 1)))
        low = data.draw(st.integers(start, stop - 1))
        high = data.draw(st.integers(low + 1, stop))
        self.reservations += [(file_id, *rest) for rest in ((start, low), (high, stop)) if rest[0] < rest[1]]
        (self.cache.commit if good else self.cache.release)(file_id, low, high)
        for chunk in range(low, high):
            self.model.reserved.remove((file_id, chunk))
            if good:
                self.model.cached.append((file_id, chunk))

    @precondition(lambda self: self.model.cached)
    @rule(data=st.data())
    def pin(self, data: st.DataObject) -> None:
        file_id = data.draw(st.sampled_from([f for f in FILES if cached_chunks(self.cache, f)]))
        start, stop = data.draw(st.sampled_from(self.cache.cached(file_id, 0, LAST)))
        low = data.draw(st.integers(start, stop - 1))
        high = data.draw(st.integers(low + 1, stop))
        self.cache.pin(file_id, low, high)
        for chunk in range(low, high):
            self.model.pin((file_id, chunk))
        views = self.cache.views(file_id, low, high, (high - low) * CHUNK_BYTES)
        self.pinned.append(((file_id, low, high), views))

    @precondition(lambda self: self.pinned)
    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        (file_id, start, stop), _ = self.pinned.pop(data.draw(st.integers(0, len(self.pinned) - 1)))
        self.cache.unpin(file_id, start, stop)
        for chunk in range(start, stop):
            self.model.unpin((file_id, chunk))
        self.model.shrink_to(self.model.capacity)

    @rule()
    def clear(self) -> None:
        assert self.cache.clear() == self.model.drop(self.model.cached.copy())
        assert free_memory_is_zero(self.cache)

    @rule(file_id=files)
    def forget(self, file_id: bytes) -> None:
        left = self.cache.forget(file_id)
        self.model.drop([chunk for chunk in self.model.cached if chunk[0] == file_id])
        assert left == sum(f == file_id for f, _ in [*self.model.cached, *self.model.reserved])
        assert free_memory_is_zero(self.cache)

    @rule(capacity=st.integers(1, 40))
    def resize(self, capacity: int) -> None:
        shrinks = capacity < self.model.capacity
        self.cache.resize(capacity)
        self.model.capacity = capacity
        self.model.shrink_to(capacity)
        if shrinks:
            self.model.high_water = self.model.used
            assert free_memory_is_zero(self.cache)

    @invariant()
    def agrees_with_the_model(self) -> None:
        cache, model = self.cache, self.model
        if model.high_water > model.capacity:  # the size was lowered below what is pinned
            model.high_water = model.used
        assert cache.used_chunks == model.used
        assert cache.reservable_chunks == max(0, model.capacity - model.fixed)
        assert cache.high_water_chunks == model.high_water
        assert (cache.eviction_count, cache.miss_count) == (model.evictions, model.misses)
        cache.check()
        assert cache.used_chunks <= max(model.capacity, model.high_water)
        for file_id in FILES:
            assert cached_chunks(cache, file_id) == sorted(chunk for f, chunk in model.cached if f == file_id)
            in_use = [f for f, _ in [*model.cached, *model.reserved] if f == file_id]
            assert cache.chunks_of(file_id) == len(in_use)

    @invariant()
    def returns_maximal_ranges(self) -> None:
        for file_id in FILES:
            found = self.cache.cached(file_id, 0, LAST)
            assert all(left.stop < right.start for left, right in pairwise(found))

    @invariant()
    def keeps_the_content(self) -> None:
        for file_id in FILES:
            for start, stop in self.cache.cached(file_id, 0, LAST):
                views = self.cache.views(file_id, start, stop, (stop - start) * CHUNK_BYTES)
                assert b"".join(views) == b"".join(content_of(file_id, c) for c in range(start, stop))
        for (file_id, start, stop), views in self.pinned:
            assert b"".join(views) == b"".join(content_of(file_id, c) for c in range(start, stop))


TestCacheAgainstModel = CacheMachine.TestCase
TestCacheAgainstModel.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)


class TestEvictionOrder:
    def test_least_recently_read_chunks_are_evicted(self) -> None:
        cache = Cache(4)
        hold(cache, A, 0, 4)
        cache.pin(A, 0, 1)
        cache.unpin(A, 0, 1)
        hold(cache, B, 0, 2)
        assert cached_chunks(cache, A) == [0, 3]

    def test_lookups_do_not_change_the_order(self) -> None:
        cache = Cache(2)
        hold(cache, A, 0, 2)
        cache.cached(A, 0, 1)
        cache.views(A, 0, 1, CHUNK_BYTES)
        hold(cache, B, 0, 1)
        assert cached_chunks(cache, A) == [1]

    def test_range_is_evicted_chunk_by_chunk_from_its_start(self) -> None:
        cache = Cache(8)
        hold(cache, A, 0, 8)
        hold(cache, B, 0, 3)
        assert cached_chunks(cache, A) == [3, 4, 5, 6, 7]
        assert cache.eviction_count == 3

    def test_pinned_chunks_are_not_evicted(self) -> None:
        cache = Cache(4)
        hold(cache, A, 0, 4)
        cache.pin(A, 0, 2)
        hold(cache, B, 0, 2)
        assert cached_chunks(cache, A) == [0, 1]
        assert not cache.reserve(B, 5, 8)
        cache.unpin(A, 0, 2)
        assert cache.reserve(B, 5, 8)


class TestSize:
    def test_reservation_that_does_not_fit_changes_nothing(self) -> None:
        cache = Cache(4)
        hold(cache, A, 0, 2)
        assert cache.reserve(B, 0, 2)
        assert not cache.reserve(B, 2, 5)
        assert cached_chunks(cache, A) == [0, 1]
        assert (cache.used_chunks, cache.high_water_chunks, cache.eviction_count) == (4, 4, 0)

    def test_range_may_lie_in_several_runs_of_slots(self) -> None:
        cache = Cache(6)
        for chunk in range(6):
            hold(cache, A, chunk, chunk + 1)
        for chunk in (0, 2, 4):
            cache.pin(A, chunk, chunk + 1)
        hold(cache, B, 0, 3)
        views = cache.views(B, 0, 3, 2 * CHUNK_BYTES + 5)
        assert len(views) == 3
        whole = b"".join(content_of(B, chunk) for chunk in range(3))
        assert b"".join(views) == whole[: 2 * CHUNK_BYTES + 5]
        assert cache.cached(B, 0, 3) == [Range(0, 3)]

    def test_growing_keeps_chunks_and_views(self) -> None:
        cache = Cache(2)
        hold(cache, A, 0, 2)
        before = cache.views(A, 0, 2, 2 * CHUNK_BYTES)
        cache.resize(5)
        hold(cache, A, 2, 5)
        assert cached_chunks(cache, A) == [0, 1, 2, 3, 4]
        assert b"".join(before) == content_of(A, 0) + content_of(A, 1)
        assert cache.high_water_chunks == 5

    def test_run_across_segments_is_cut_at_their_boundary(self) -> None:
        cache = Cache(2)
        cache.resize(5)
        hold(cache, A, 0, 5)
        views = cache.views(A, 0, 5, 5 * CHUNK_BYTES)
        assert [len(view) for view in views] == [2 * CHUNK_BYTES, 3 * CHUNK_BYTES]

    def test_size_beyond_memory_is_refused(self) -> None:
        cache = Cache(2)
        hold(cache, A, 0, 2)
        with pytest.raises(LimitReached):
            cache.resize(2**62)
        assert cache.capacity_chunks == 2
        assert cached_chunks(cache, A) == [0, 1]

    def test_pinned_chunks_beyond_lowered_capacity_are_evicted_later(self) -> None:
        cache = Cache(4)
        hold(cache, A, 0, 4)
        cache.pin(A, 0, 3)
        cache.resize(1)
        assert cached_chunks(cache, A) == [0, 1, 2]
        assert cache.reservable_chunks == 0
        cache.unpin(A, 0, 3)
        assert cached_chunks(cache, A) == [2]
        assert cache.used_chunks == 1

    def test_unknown_file_has_no_chunks(self) -> None:
        cache = Cache(4)
        assert cache.cached(A, 0, 10) == []
        assert cache.chunks_of(A) == 0
        assert cache.forget(A) == 0

    def test_operation_on_chunks_in_wrong_state_fails(self) -> None:
        cache = Cache(4)
        assert cache.reserve(A, 0, 2)
        with pytest.raises(AssertionError):
            cache.pin(A, 0, 2)
        with pytest.raises(AssertionError):
            cache.commit(A, 0, 3)
        with pytest.raises(AssertionError):
            cache._arena.acquire(3)


class TestCounters:
    def test_hits_aggregated_and_missed_chunks_are_counted(self) -> None:
        cache = Cache(4)
        hold(cache, A, 0, 3)
        cache.count_hits(2)
        cache.count_aggregated(1)
        assert not cache.reserve(B, 0, 5), "a fetch that cannot start must not count as a miss"
        assert (cache.hit_count, cache.join_count, cache.miss_count) == (2, 1, 3)


class TestOverwriting:
    def spans(self) -> Iterator[tuple[Cache, list[memoryview]]]:
        for size in (8, 600):  # the second needs several writes of zeros
            cache = Cache(size)
            hold_all = [(start, min(start + 200, size)) for start in range(0, size, 200)]
            for start, stop in hold_all:
                assert cache.reserve(A, start, stop)
                for view in cache.views(A, start, stop, (stop - start) * CHUNK_BYTES):
                    view[:] = b"\xff" * len(view)
                cache.commit(A, start, stop)
            yield cache, cache.views(A, 0, size, size * CHUNK_BYTES)

    def test_forgotten_file_is_overwritten(self) -> None:
        for cache, memory in self.spans():
            assert cache.forget(A) == 0
            assert not any(map(any, memory))

    def test_cleared_cache_is_overwritten(self) -> None:
        for cache, memory in self.spans():
            assert cache.clear() == cache.capacity_chunks
            assert not any(map(any, memory))

    def test_pinned_chunks_stay_until_the_next_forget(self) -> None:
        cache = Cache(8)
        hold(cache, A, 0, 4)
        memory = cache.views(A, 0, 4, 4 * CHUNK_BYTES)
        cache.pin(A, 1, 2)
        assert cache.forget(A) == 1
        assert b"".join(memory).count(0) == 3 * CHUNK_BYTES
        cache.unpin(A, 1, 2)
        assert cache.forget(A) == 0
        assert not any(map(any, memory))

    def test_evicted_chunks_are_overwritten(self) -> None:
        cache = Cache(4)
        hold(cache, A, 0, 4)
        memory = cache.views(A, 0, 4, 4 * CHUNK_BYTES)
        assert cache.reserve(B, 0, 4)  # evicts
        assert not any(map(any, memory))

    def test_chunks_evicted_by_shrinking_are_overwritten(self) -> None:
        cache = Cache(4)
        hold(cache, A, 0, 4)
        memory = cache.views(A, 0, 4, 4 * CHUNK_BYTES)
        cache.resize(2)
        assert cached_chunks(cache, A) == [2, 3]
        assert b"".join(memory).count(0) == 2 * CHUNK_BYTES
