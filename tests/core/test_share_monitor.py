"""Clients that make no progress on their shares do not delay the seeding."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pspd.core.effects.server import Assign, Deliver, SaveFile, ShareReassigned
from pspd.core.effects.shared import Milestone
from pspd.core.model.file_record import Phase
from pspd.core.model.parameters import SECOND_NS
from pspd.core.model.ranges import Range
from pspd.core.model.terms import ONE_COPY, Terms
from pspd.core.model.tuning import SERVER_TUNING
from pspd.core.server.sessions import Member
from pspd.core.server.shared_file import SharedFile
from pspd.core.wire.datagrams import Hello
from tests.core.bench import Bench

TWO_SNAPSHOTS_NS = 2 * SERVER_TUNING.share_check_ns + 10 * SECOND_NS


@pytest.fixture
def bench() -> Bench:
    return Bench()


def in_seeding(bench: Bench, terms: Terms = ONE_COPY) -> tuple[Member, Member, SharedFile]:
    """Return two clients and a file in seeding. The first client holds its share."""
    a, b = bench.join("a"), bench.join("b")
    file = bench.seed("f", 12, terms=terms)
    bench.reach(a, file, Milestone.SHARE_HELD)
    bench.server.poll()
    return a, b, file


def pass_time(bench: Bench, duration_ns: int, do: Callable[[], None] = lambda: None) -> list[object]:
    """Let every member send hellos, and call ``do`` each second. Return the effects of the server."""
    effects: list[object] = []
    until = bench.now + duration_ns
    while bench.now < until:
        bench.pass_time(SECOND_NS)
        for member in list(bench.server.members.values()):
            bench.send(member, Hello(member.session, bench.now // SECOND_NS, 1000))
        do()
        effects += bench.server.poll()
    return effects


def idle_owners(effects: list[object]) -> list[str]:
    return [effect.client for effect in effects if isinstance(effect, ShareReassigned)]


def test_idle_owner_loses_its_share(bench: Bench) -> None:
    a, b, file = in_seeding(bench)
    effects = pass_time(bench, TWO_SNAPSHOTS_NS)
    assert idle_owners(effects) == ["b"]
    assigned = {effect.session: effect.shares for effect in effects if isinstance(effect, Assign)}
    assert assigned == {a.session: (Range(0, 6), Range(6, 12)), b.session: ()}, "both get their shares"
    assert [effect.record.owners for effect in effects if isinstance(effect, SaveFile)] == [("a", "a")]
    bench.reach(a, file, Milestone.SHARE_HELD)
    assert file.phase is not Phase.SEEDING, "the idle owner does not delay the seeding"


def test_owner_that_never_acknowledges_is_idle(bench: Bench) -> None:
    _, b, file = in_seeding(bench)
    bench.ask(b, file, (6, 12))
    for fetch in list(bench.fetches(file)):
        assert bench.contribute(bench.frame(bench.server.members[file.source], file, fetch.start, fetch.stop))
    assert any(isinstance(effect, Deliver) for effect in bench.server.poll())
    effects = pass_time(bench, TWO_SNAPSHOTS_NS + SERVER_TUNING.share_check_ns, lambda: bench.ask(b, file, (6, 12)))
    assert idle_owners(effects) == ["b"]


def test_owner_without_deliveries_is_not_idle(bench: Bench) -> None:
    _, b, file = in_seeding(bench)
    bench.server.member_left(bench.server.members[file.source].session, "it left", bench.now)
    assert idle_owners(pass_time(bench, 2 * TWO_SNAPSHOTS_NS, lambda: bench.ask(b, file, (6, 12)))) == []


def test_stalled_server_reassigns_nothing(bench: Bench) -> None:
    _, b, file = in_seeding(bench)
    bench.pass_time(SERVER_TUNING.share_check_ns - SECOND_NS)
    bench.ask(b, file, (6, 12))
    bench.now += 10 * SERVER_TUNING.share_check_ns
    bench.server.handle_timeout(bench.now)
    assert idle_owners(list(bench.server.poll())) == []


def test_replica_without_another_holder_is_not_awaited(bench: Bench) -> None:
    _, _, file = in_seeding(bench, Terms(replica_count=2))
    assert file.phase is Phase.SEEDING
    assert idle_owners(pass_time(bench, TWO_SNAPSHOTS_NS)) == ["b"]
    assert file.phase is Phase.EXCHANGING


def test_only_client_keeps_its_share_until_another_joins(bench: Bench) -> None:
    bench.join("a")
    file = bench.seed("f", 12)
    bench.server.poll()
    assert idle_owners(pass_time(bench, 2 * TWO_SNAPSHOTS_NS)) == []
    assert file.shares.ranges_of("a") == (Range(0, 12),)
    bench.join("b")
    assert idle_owners(pass_time(bench, TWO_SNAPSHOTS_NS)) == ["a"]
    assert file.shares.ranges_of("b") == (Range(0, 12),)
    bench.server.member_left(bench.server.members["b"].session, "it left", bench.now)
    assert file.shares.ranges_of("a") == (Range(0, 12),), "a is the owner again"


def test_idle_owner_is_found_after_a_restart(bench: Bench) -> None:
    _, _, file = in_seeding(bench)
    again = Bench()
    again.server.restore([file.record], ["a", "b"], again.now)
    for name in ("a", "b"):
        again.join(name)
    restored = again.server.catalogue.files[file.file_id]
    again.reach(again.server.members["a"], restored, Milestone.SHARE_HELD)
    assert idle_owners(pass_time(again, TWO_SNAPSHOTS_NS)) == ["b"]
