"""Holds the control API to its house style: every element commented, every name where it is looked for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
FILES = sorted((PROTO / "pspd" / "v1").rglob("*.proto"))
"""Ours: the names in reflection_v1 are gRPC's."""

_ELEMENTS = {
    "message": re.compile(r"message (\w+)"),
    "service": re.compile(r"service (\w+)"),
    "enum": re.compile(r"enum (\w+)"),
    "oneof": re.compile(r"oneof (\w+)"),
    "rpc": re.compile(r"rpc (\w+)\s*\((?:stream )?(\w+)\) returns \((?:stream )?(\w+)\)"),
    "value": re.compile(r"([A-Z][A-Z0-9_]*) = (\d+);"),
    "field": re.compile(r"(?:optional |repeated )?[\w.]+(?:<[\w., ]+>)? (\w+) = \d+"),
}


@dataclass(frozen=True)
class Element:
    """One thing that a .proto file defines."""

    kind: str
    name: str
    where: str
    inside: tuple[str, ...]
    commented: bool
    match: re.Match[str]


def elements_of(path: Path) -> Iterator[Element]:
    """Everything that a file defines, top down; one definition a line, as the house writes them."""
    inside: list[str] = []
    previous = ""
    for number, raw in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        line = raw.strip()
        if line and not line.startswith(("//", "syntax", "package", "import", "option ", "reserved", "}")):
            for kind, pattern in _ELEMENTS.items():
                if match := pattern.match(line):
                    where = f"{path.relative_to(ROOT)}:{number}"
                    yield Element(kind, match[1], where, tuple(inside), previous.startswith("//"), match)
                    break
            else:
                pytest.fail(f"{path.relative_to(ROOT)}:{number}: not understood: {line}", pytrace=False)
            if line.endswith("{"):
                inside.append(match[1])
        elif line.startswith("}"):
            inside.pop()
        previous = line


def every_element() -> list[Element]:
    """Everything that the API defines."""
    return [element for path in FILES for element in elements_of(path)]


def refuse(violations: list[str], rule: str) -> None:
    """Fails with every violation on a line of its own."""
    if violations:
        pytest.fail(rule + "\n  " + "\n  ".join(violations), pytrace=False)


def test_there_is_an_api() -> None:
    """The rules below would hold of nothing at all."""
    assert FILES
    assert {element.kind for element in every_element()} >= {
        "message",
        "service",
        "rpc",
        "enum",
        "value",
        "field",
    }


def test_everything_is_commented() -> None:
    """Whoever reads the API alone can use it: each element says what it means."""
    violations = [f"{each.where}: {each.kind} {each.name}" for each in every_element() if not each.commented]
    refuse(violations, "No comment on the line above:")


def test_packages_are_where_their_name_says() -> None:
    """``package pspd.v1`` lies in ``proto/pspd/v1``; file names are lower_snake_case."""
    violations = []
    for path in FILES:
        package = re.search(r"^package ([\w.]+);$", path.read_text(encoding="utf-8"), re.MULTILINE)
        expected = ".".join(path.relative_to(PROTO).parts[:-1])
        if not package or package[1] != expected:
            violations.append(f"{path.relative_to(ROOT)}: its package must be {expected}")
        if not re.fullmatch(r"[a-z][a-z0-9_]*\.proto", path.name):
            violations.append(f"{path.relative_to(ROOT)}: its name must be lower_snake_case")
        if not re.search(r"\.v\d+$", expected):
            violations.append(f"{path.relative_to(ROOT)}: its package must end in a version, as in v1")
    refuse(violations, "Packages and files:")


def test_services_and_their_messages_are_named_alike() -> None:
    """``service XService``; ``rpc Do(DoRequest) returns (DoResponse)``, perhaps led by the service's name."""
    violations = []
    for each in every_element():
        if each.kind == "service" and not each.name.endswith("Service"):
            violations.append(f"{each.where}: service {each.name} must end in Service")
        if each.kind == "rpc":
            service = each.inside[-1]
            for given, suffix in ((each.match[2], "Request"), (each.match[3], "Response")):
                if given not in (f"{each.name}{suffix}", f"{service}{each.name}{suffix}"):
                    violations.append(f"{each.where}: {given} must be {each.name}{suffix}")
    refuse(violations, "Services:")


def test_fields_and_values_are_named_by_rule() -> None:
    """Fields are lower_snake_case; an enum's values bear its name in front, and 0 is UNSPECIFIED."""
    violations = []
    for each in every_element():
        if each.kind in ("field", "oneof") and not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", each.name):
            violations.append(f"{each.where}: field {each.name} must be lower_snake_case")
        if each.kind == "value":
            prefix = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", each.inside[-1]).upper() + "_"
            if not each.name.startswith(prefix):
                violations.append(f"{each.where}: {each.name} must begin with {prefix}")
            if each.match[2] == "0" and each.name != f"{prefix}UNSPECIFIED":
                violations.append(f"{each.where}: the value 0 must be {prefix}UNSPECIFIED")
    refuse(violations, "Fields and values:")
