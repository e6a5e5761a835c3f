"""``pspctl context``: named servers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.pspctl.conftest import Pspctl
from tests.pspctl.fakes import FakeServer
from tests.store.stores import mode_of, umask_of


def test_the_current_context_names_the_server(lone_pspctl: Pspctl, fake: FakeServer) -> None:
    assert lone_pspctl("context", "add", "lab", fake.address).exit_code == 0
    assert lone_pspctl("context", "use", "lab").stdout == f"commands now talk to lab, {fake.address}\n"
    assert lone_pspctl("clients").exit_code == 0


def test_the_environment_wins_over_the_context(pspctl: Pspctl, fake: FakeServer) -> None:
    pspctl("context", "add", "lab", "127.0.0.1:1")
    assert f"PSPCTL_SERVER comes first: commands talk to {fake.address}" in pspctl("context", "use", "lab").stderr
    assert pspctl("clients").exit_code == 0


def test_ls_lists_them_by_name_and_marks_the_current_one(lone_pspctl: Pspctl) -> None:
    for name in ("b", "a"):
        lone_pspctl("context", "add", name, f"{name}:7070")
    lone_pspctl("context", "use", "b")
    assert [line.split() for line in lone_pspctl("context", "ls").stdout.splitlines()] == [
        ["NAME", "SERVER"],
        ["a", "a:7070"],
        ["*", "b", "b:7070"],
    ]
    assert json.loads(lone_pspctl("context", "ls", "-o", "json").stdout) == {
        "schema_version": 1,
        "current": "b",
        "contexts": [{"name": "a", "address": "a:7070"}, {"name": "b", "address": "b:7070"}],
    }


def test_a_removed_context_is_no_longer_current(lone_pspctl: Pspctl) -> None:
    lone_pspctl("context", "add", "lab", "lab:1")
    lone_pspctl("context", "use", "lab")
    document = json.loads(lone_pspctl("context", "rm", "lab", "-o", "json").stdout)
    assert (document["current"], document["contexts"]) == (None, [])


def test_a_name_is_not_given_away_twice(lone_pspctl: Pspctl) -> None:
    lone_pspctl("context", "add", "lab", "lab:1")
    assert lone_pspctl("context", "add", "lab", "lab:1").exit_code == 0
    result = lone_pspctl("context", "add", "lab", "lab:2")
    assert result.exit_code == 4
    assert "lab already names lab:1" in result.stderr


def test_a_context_that_is_not_there_is_not_found(lone_pspctl: Pspctl) -> None:
    for command in ("use", "rm"):
        assert lone_pspctl("context", command, "lab").exit_code == 3


def test_a_context_needs_a_name(lone_pspctl: Pspctl, config_dir: Path) -> None:
    assert lone_pspctl("context", "add", "", "lab:7070").exit_code == 2
    assert not config_dir.exists()


def test_context_name_with_control_characters_is_refused(lone_pspctl: Pspctl, config_dir: Path) -> None:
    result = lone_pspctl("context", "add", "a\nb", "lab:7070")
    assert result.exit_code == 2
    assert result.stderr == "pspctl: error: context name 'a\\nb' holds control characters: give another\n"
    assert not config_dir.exists()


def test_an_address_must_be_one(lone_pspctl: Pspctl, config_dir: Path) -> None:
    assert lone_pspctl("context", "add", "lab", "lab:").exit_code == 2
    assert not config_dir.exists()


@pytest.mark.parametrize(
    ("given", "kept"), [("lab", "lab:7070"), ("10.0.0.1", "10.0.0.1:7070"), ("::1", "[::1]:7070"), ("a:1", "a:1")]
)
def test_context_keeps_an_address_with_its_port(lone_pspctl: Pspctl, given: str, kept: str) -> None:
    assert lone_pspctl("context", "add", "lab", given).exit_code == 0
    listed = json.loads(lone_pspctl("context", "ls", "-o", "json").stdout)
    assert listed["contexts"] == [{"name": "lab", "address": kept}]


def test_a_broken_file_is_an_error_of_one_line_and_needs_no_reading_with_an_option(
    lone_pspctl: Pspctl, config_dir: Path, fake: FakeServer
) -> None:
    config_dir.mkdir()
    for text in ("{", "[]", '{"contexts": 1}', "\xff"):
        (config_dir / "contexts.json").write_text(text, encoding="latin-1")
        result = lone_pspctl("clients")
        assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
        assert "repair or remove it" in result.stderr
    assert lone_pspctl("clients", "--server", fake.address).exit_code == 0


def test_nothing_but_the_contexts_is_left_in_the_folder(lone_pspctl: Pspctl, config_dir: Path) -> None:
    lone_pspctl("context", "add", "lab", "lab:1")
    assert [path.name for path in config_dir.iterdir()] == ["contexts.json"]


def test_a_folder_that_cannot_be_written_is_an_error_of_one_line(lone_pspctl: Pspctl, config_dir: Path) -> None:
    config_dir.write_text("a file where the folder should be")
    result = lone_pspctl("context", "add", "lab", "lab:1")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_contexts_are_their_owners_alone(
    lone_pspctl: Pspctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int
) -> None:
    folder = tmp_path / "own"
    monkeypatch.setenv("PSPCTL_CONFIG_DIR", str(folder))
    with umask_of(umask):
        assert lone_pspctl("context", "add", "lab", "lab:7070").exit_code == 0
    assert mode_of(folder) == 0o700
    assert mode_of(folder / "contexts.json") == 0o600


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"contexts": [], "current": null}', "[" * 100_000, "\udcff"])
def test_a_file_without_contexts_is_one_line(lone_pspctl: Pspctl, config_dir: Path, text: str) -> None:
    config_dir.mkdir()
    (config_dir / "contexts.json").write_text(text, errors="surrogateescape")
    result = lone_pspctl("context", "ls")
    assert result.exit_code == 1
    expected = f"pspctl: error: {config_dir}/contexts.json does not hold contexts: repair or remove it\n"
    assert result.stderr == expected
