"""Mutants that the first seeds find; ``scripts/mutants`` runs all of them."""

from __future__ import annotations

import pytest

from tests.sim.mutants import CONTRADICTION_MUTANTS, MUTANTS, Mutant, contradiction_failure, first_failure

SEEDS = 30


@pytest.mark.parametrize("mutant", [mutant for mutant in MUTANTS if mutant.is_quick], ids=lambda mutant: mutant.text)
def test_first_seeds_find_the_mutant(mutant: Mutant) -> None:
    outcome = first_failure(mutant, SEEDS)
    assert outcome is not None
    assert outcome.rule in mutant.rules, outcome.text


@pytest.mark.parametrize("name", CONTRADICTION_MUTANTS)
def test_contradictory_digests_find_the_mutant(name: str) -> None:
    assert contradiction_failure(name) is not None
