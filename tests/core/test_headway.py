"""Who takes nothing of its share does not hold up a seeding."""

from __future__ import annotations

import pytest

from pspd.core.catalogue import HEADWAY_NS
from pspd.core.effects import Assign, Milestone, SharePassedOn
from pspd.core.file_record import Phase
from pspd.core.members import Member
from pspd.core.parameters import SECOND_NS
from pspd.core.ranges import Range
from pspd.core.shared_file import SharedFile
from pspd.core.wire import Hello
from tests.core.bench import Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()


def begun(bench: Bench) -> tuple[Member, Member, SharedFile]:
    """Two clients; the first holds its share."""
    a, b = bench.join("a"), bench.join("b")
    file = bench.seed("f", 12)
    bench.reach(a, file, Milestone.SHARE_HELD)
    bench.server.poll()
    return a, b, file


def pass_time(bench: Bench, duration_ns: int) -> list[object]:
    """Time in which everybody says hello, and does nothing else. Returns what the server did, but for the hellos."""
    effects: list[object] = []
    until = bench.now + duration_ns
    while bench.now < until:
        bench.pass_time(SECOND_NS)
        for member in list(bench.server.members.values()):
            bench.send(member, Hello(member.session, bench.now // SECOND_NS, 1000))
        effects += bench.server.poll()
    return effects


def test_its_share_goes_to_another_when_nothing_else_is_waited_for(bench: Bench) -> None:
    a, b, file = begun(bench)
    effects = pass_time(bench, 2 * HEADWAY_NS + 5 * SECOND_NS)
    assert [effect for effect in effects if isinstance(effect, SharePassedOn)] == [
        SharePassedOn(file.file_id, "f", "b")
    ]
    told = {effect.session: effect.shares for effect in effects if isinstance(effect, Assign)}
    assert told == {a.session: (Range(0, 6), Range(6, 12)), b.session: ()}
    bench.reach(a, file, Milestone.SHARE_HELD)
    assert file.phase is not Phase.SEEDING, "nobody waits for the other any more"


def test_not_while_anybody_makes_headway(bench: Bench) -> None:
    _, b, file = begun(bench)
    for chunk in range(6, 9):
        assert not any(isinstance(effect, SharePassedOn) for effect in pass_time(bench, HEADWAY_NS))
        file.hold(b.name, [(chunk, chunk + 1)])
    assert file.shares_of("b") == (Range(6, 12),)


def test_who_takes_it_after_all_counts_again(bench: Bench) -> None:
    _, b, file = begun(bench)
    pass_time(bench, 2 * HEADWAY_NS + 5 * SECOND_NS)
    assert file.idle == {"b"}
    file.hold(b.name, [(0, 1)])
    assert file.idle == set()


def test_where_there_is_nobody_else_it_stays_its_own_until_somebody_comes(bench: Bench) -> None:
    bench.join("a")
    file = bench.seed("f", 12)
    bench.server.poll()
    effects = pass_time(bench, 3 * HEADWAY_NS)
    assert not any(isinstance(effect, SharePassedOn | Assign) for effect in effects)
    assert file.shares_of("a") == (Range(0, 12),)
    bench.join("b")
    assert file.shares_of("b") == (Range(0, 12),)


def test_not_while_the_source_is_away(bench: Bench) -> None:
    _, _, file = begun(bench)
    bench.server.client_left(bench.server.members[file.source].session, "it left", bench.now)
    bench.server.poll()
    assert file.stalled
    assert not any(isinstance(effect, SharePassedOn) for effect in pass_time(bench, 3 * HEADWAY_NS))
