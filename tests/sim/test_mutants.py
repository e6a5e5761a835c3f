"""Mutants that the first seeds find; ``scripts/mutants`` runs all of them."""

from __future__ import annotations

import pytest

from tests.sim.mutants import CASE_MUTANTS, MUTANTS, CaseMutant, Mutant, case_failure, first_failure, is_found

SEEDS = 30


@pytest.mark.parametrize("mutant", [mutant for mutant in MUTANTS if mutant.is_quick], ids=lambda mutant: mutant.bug)
def test_first_seeds_find_the_mutant(mutant: Mutant) -> None:
    outcome = first_failure(mutant, SEEDS)
    assert is_found(mutant, outcome), outcome


@pytest.mark.parametrize("mutant", CASE_MUTANTS, ids=lambda mutant: mutant.bug)
def test_special_network_finds_the_mutant(mutant: CaseMutant) -> None:
    assert case_failure(mutant) is not None
