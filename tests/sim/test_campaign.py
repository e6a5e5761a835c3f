"""``scripts/sim``: its output, and that equal seeds give equal runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pspd.sim.scenario import run_seed

CAMPAIGN = Path(__file__).resolve().parents[2] / "scripts" / "campaign.py"


def campaign(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script in a separate process."""
    command = [sys.executable, str(CAMPAIGN), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=120)


def test_traces_do_not_depend_on_the_hash_seed() -> None:
    first, second = (campaign("--seeds", "7..15", "--jobs", "1", "--trace", PYTHONHASHSEED=seed) for seed in "12")
    assert first.returncode == second.returncode == 0
    assert first.stdout.splitlines()[:8] == second.stdout.splitlines()[:8]
    assert len({line.split()[-1] for line in first.stdout.splitlines()[:8]}) == 8


def test_many_seeds_are_ok() -> None:
    """Run some seeds in Python; ``scripts/check-compiled`` runs more of them in compiled modules."""
    result = campaign("--seeds", "0..60")
    assert result.returncode == 0, result.stdout
    assert "60 seeds" in result.stdout
    assert "'ok': 60" in result.stdout


@pytest.mark.parametrize("wrong", [("--seeds", "9..3"), ("--seeds", "1.."), ("--seeds", "x"), ("--jobs", "0")])
def test_invalid_arguments_are_rejected(wrong: tuple[str, ...]) -> None:
    result = campaign("--seeds", "0", *wrong)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("seed", range(6))
def test_invariants_hold_after_every_input(seed: int) -> None:
    outcome = run_seed(seed, record_check_steps=1)
    assert outcome.kind == "ok", outcome.text
