"""Injected faults: what they do to datagrams, and how they are parsed."""

from __future__ import annotations

from itertools import pairwise

import pytest

from pspd.errors import BadArgument
from pspd.net.faults import Faults, FaultyReceiver
from pspd.text.addresses import Address

COUNT = 20_000
FROM: Address = ("10.0.0.1", 7)


def passed(faults: Faults, count: int = COUNT) -> list[int]:
    """Return the numbers of the datagrams that are passed on, of those from 0 to ``count``."""
    numbers: list[int] = []

    def take(data: bytes, source: Address) -> None:
        assert source == FROM
        numbers.append(int(data))

    receiver = FaultyReceiver(faults, take)
    for number in range(count):
        receiver(b"%d" % number, FROM)
    return numbers


def test_no_faults_change_nothing() -> None:
    assert passed(Faults()) == list(range(COUNT))


@pytest.mark.parametrize("seed", [0, 1, 7])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_loss_matches_its_probability(share: float, seed: int) -> None:
    numbers = passed(Faults(loss=share, seed=seed))
    assert numbers == sorted(set(numbers))
    assert 1 - len(numbers) / COUNT == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("seed", [0, 1, 7])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_duplication_matches_its_probability(share: float, seed: int) -> None:
    numbers = passed(Faults(duplicate=share, seed=seed))
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(COUNT))
    assert max(numbers.count(number) for number in range(200)) == 2
    assert len(numbers) / COUNT - 1 == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("seed", [0, 1, 7])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_reordering_matches_its_probability(share: float, seed: int) -> None:
    numbers = passed(Faults(reorder=share, seed=seed))
    assert sorted(numbers) in (list(range(COUNT)), list(range(COUNT - 1)))
    swaps = sum(first == second + 1 for first, second in pairwise(numbers))
    assert all(abs(number - place) <= 1 for place, number in enumerate(numbers))
    # No datagram is delayed while another is: each delayed one is followed by one that is not.
    assert swaps / COUNT == pytest.approx(share / (1 + share), abs=0.02)


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        (Faults(loss=1), []),
        (Faults(duplicate=1), [0, 0, 1, 1, 2, 2, 3, 3]),
        (Faults(reorder=1), [1, 0, 3, 2]),
        (Faults(loss=1, duplicate=1, reorder=1), []),
        (Faults(duplicate=1, reorder=1), [1, 1, 0, 3, 3, 2]),
    ],
    ids=str,
)
def test_fault_with_probability_1_always_happens(faults: Faults, expected: list[int]) -> None:
    assert passed(faults, 4) == expected


def test_faults_depend_on_seed_only() -> None:
    faults = {seed: Faults(0.3, 0.1, 0.1, seed) for seed in (1, 2)}
    assert passed(faults[1]) == passed(faults[1]) != passed(faults[2])


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("", Faults()),
        ("loss=0.3", Faults(loss=0.3)),
        ("loss=0.3,duplicate=0.1,reorder=0.2,seed=7", Faults(0.3, 0.1, 0.2, 7)),
        ("seed=7,loss=1", Faults(loss=1.0, seed=7)),
        ("duplicate=0,", Faults()),
    ],
)
def test_faults_are_parsed(text: str, faults: Faults) -> None:
    assert Faults.parse(text) == faults


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("loss", "loss"),
        ("loss=", "loss="),
        ("loss=much", "loss=much"),
        ("loss=1.1", "loss=1.1"),
        ("loss=0.1,duplicate=-0.1", "duplicate=-0.1"),
        ("loss=nan", "loss=nan"),
        ("delay=0.1", "delay=0.1"),
        ("seed=x", "seed=x"),
        ("=0.1", "=0.1"),
        ("loss=0.1;seed=1", "loss=0.1;seed=1"),
    ],
)
def test_malformed_faults_are_refused_and_named(text: str, bad: str) -> None:
    with pytest.raises(BadArgument) as refused:
        Faults.parse(text)
    assert repr(bad) in str(refused.value)
    assert "loss" in str(refused.value)
