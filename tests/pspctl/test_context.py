"""``pspctl context``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.pspctl.conftest import Pspctl
from tests.pspctl.fakes import FakeServer
from tests.store.stores import mode_of, umask_of


def test_current_context_names_the_server(lone_pspctl: Pspctl, fake: FakeServer) -> None:
    assert lone_pspctl("context", "add", "lab", fake.address).exit_code == 0
    assert lone_pspctl("context", "use", "lab").stdout == f"commands now talk to lab, {fake.address}\n"
    assert lone_pspctl("clients").exit_code == 0


def test_environment_takes_precedence_over_context(pspctl: Pspctl, fake: FakeServer) -> None:
    pspctl("context", "add", "lab", "127.0.0.1:1")
    assert f"PSPCTL_SERVER takes precedence: commands talk to {fake.address}" in pspctl("context", "use", "lab").stderr
    assert pspctl("clients").exit_code == 0


def test_ls_sorts_by_name_and_marks_current(lone_pspctl: Pspctl) -> None:
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


def test_removed_context_is_no_longer_current(lone_pspctl: Pspctl) -> None:
    lone_pspctl("context", "add", "lab", "lab:1")
    lone_pspctl("context", "use", "lab")
    document = json.loads(lone_pspctl("context", "rm", "lab", "-o", "json").stdout)
    assert (document["current"], document["contexts"]) == (None, [])


def test_add_refuses_name_in_use(lone_pspctl: Pspctl) -> None:
    lone_pspctl("context", "add", "lab", "lab:1")
    assert lone_pspctl("context", "add", "lab", "lab:1").exit_code == 0
    result = lone_pspctl("context", "add", "lab", "lab:2")
    assert result.exit_code == 4
    assert "lab already names lab:1" in result.stderr


def test_unknown_context_is_not_found(lone_pspctl: Pspctl) -> None:
    for command in ("use", "rm"):
        assert lone_pspctl("context", command, "lab").exit_code == 3


def test_add_refuses_empty_name(lone_pspctl: Pspctl, config_dir: Path) -> None:
    assert lone_pspctl("context", "add", "", "lab:7070").exit_code == 2
    assert not config_dir.exists()


@pytest.mark.parametrize(("name", "shown"), [("a\nb", "a\\nb"), ("\udcff", "\\udcff"), ("x" * 100_000, "x" * 100)])
def test_add_refuses_long_or_unprintable_name(lone_pspctl: Pspctl, config_dir: Path, name: str, shown: str) -> None:
    result = lone_pspctl("context", "add", name, "lab:7070")
    assert result.exit_code == 2
    assert result.stderr == f"pspctl: error: context name '{shown}' is not 1 to 100 plain characters: give another\n"
    assert not config_dir.exists()


def test_add_refuses_invalid_address(lone_pspctl: Pspctl, config_dir: Path) -> None:
    assert lone_pspctl("context", "add", "lab", "lab:").exit_code == 2
    assert not config_dir.exists()


@pytest.mark.parametrize(
    ("given", "kept"), [("lab", "lab:7070"), ("10.0.0.1", "10.0.0.1:7070"), ("::1", "[::1]:7070"), ("a:1", "a:1")]
)
def test_add_stores_address_with_port(lone_pspctl: Pspctl, given: str, kept: str) -> None:
    assert lone_pspctl("context", "add", "lab", given).exit_code == 0
    listed = json.loads(lone_pspctl("context", "ls", "-o", "json").stdout)
    assert listed["contexts"] == [{"name": "lab", "address": kept}]


def test_broken_file_is_an_error_unless_server_is_given(
    lone_pspctl: Pspctl, config_dir: Path, fake: FakeServer
) -> None:
    config_dir.mkdir()
    for text in ("{", "[]", '{"contexts": 1}', "\xff"):
        (config_dir / "contexts.json").write_text(text, encoding="latin-1")
        result = lone_pspctl("clients")
        assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
        assert "repair or remove it" in result.stderr
    assert lone_pspctl("clients", "--server", fake.address).exit_code == 0


def test_save_leaves_only_the_contexts_file(lone_pspctl: Pspctl, config_dir: Path) -> None:
    lone_pspctl("context", "add", "lab", "lab:1")
    assert [path.name for path in config_dir.iterdir()] == ["contexts.json"]


def test_unwritable_folder_is_an_error(lone_pspctl: Pspctl, config_dir: Path) -> None:
    config_dir.write_text("a file where the folder should be")
    result = lone_pspctl("context", "add", "lab", "lab:1")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_contexts_are_readable_by_owner_only(
    lone_pspctl: Pspctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int
) -> None:
    folder = tmp_path / "own"
    monkeypatch.setenv("PSPCTL_CONFIG_DIR", str(folder))
    with umask_of(umask):
        assert lone_pspctl("context", "add", "lab", "lab:7070").exit_code == 0
    assert mode_of(folder) == 0o700
    assert mode_of(folder / "contexts.json") == 0o600


FILES_WITHOUT_CONTEXTS = [
    *("", "[]", "{}", '{"contexts": [], "current": null}', "[" * 100_000, "\udcff"),
    *('{"contexts": {"lab": 5}, "current": "lab"}', '{"contexts": {"lab": null}, "current": null}'),
    *('{"contexts": {}, "current": 0}', '{"contexts": {}, "current": []}'),
]


@pytest.mark.parametrize("text", FILES_WITHOUT_CONTEXTS)
def test_file_without_contexts_is_an_error(lone_pspctl: Pspctl, config_dir: Path, text: str) -> None:
    config_dir.mkdir()
    (config_dir / "contexts.json").write_text(text, errors="surrogateescape")
    result = lone_pspctl("context", "ls")
    assert result.exit_code == 1
    expected = f"pspctl: error: {config_dir}/contexts.json does not hold contexts: repair or remove it\n"
    assert result.stderr == expected
