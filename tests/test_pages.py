"""Checks that links, anchors and code pointers in README, CONTRIBUTING, CHANGELOG and docs/ lead somewhere."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]

FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"^(?:pspd|pspctl|tests|scripts|docs|proto|\.ci)/[\w./*-]*$")
MODULE = re.compile(r"^(?:\w+/)*\w+\.py$")
DOTTED = re.compile(r"^(?:pspd|pspctl|tests|scripts)(?:\.\w+)+$")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
EXPLICIT_ANCHOR = re.compile(r'<a (?:id|name)="([^"]+)"')
SUFFIXES = ("md", "py", "toml", "yaml", "yml", "json")
"""Of file names, which are not attributes of modules."""


@cache
def anchors_of(page: Path) -> frozenset[str]:
    """Return the anchors of a page, as GitHub makes them from headings."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    found: list[str] = EXPLICIT_ANCHOR.findall(text)
    for heading in HEADING.findall(text):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        count = sum(1 for each in found if each == anchor or re.fullmatch(re.escape(anchor) + r"-\d+", each))
        found.append(f"{anchor}-{count}" if count else anchor)
    return frozenset(found)


def broken_links(page: Path) -> Iterator[str]:
    """Return the relative links of a page whose file or anchor does not exist."""
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists():
            yield f"{target}: no such file"
        elif anchor and file.suffix == ".md" and anchor not in anchors_of(file):
            yield f"{target}: no such heading"


@cache
def module_paths() -> frozenset[str]:
    """Return every module's path, and each end of it: tables name modules without the folders that they are about."""
    files = [
        path.relative_to(ROOT) for top in ("pspd", "pspctl", "tests", "scripts") for path in (ROOT / top).rglob("*.py")
    ]
    return frozenset("/".join(path.parts[index:]) for path in files for index in range(len(path.parts)))


def is_dotted(word: str) -> bool:
    """Return whether a word names Python code; names in ``pspd.v1`` are those of the proto package."""
    return bool(DOTTED.match(word)) and not word.startswith("pspd.v1") and word.rpartition(".")[2] not in SUFFIXES


def exists(name: str) -> bool:
    """Return whether a dotted name is a module or package, or is defined in one: at its top level, or in a class."""
    return is_module(name) or is_defined(name) or is_defined(name.rpartition(".")[0])


def is_module(name: str) -> bool:
    """Return whether a dotted name is a module or package."""
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def is_defined(name: str) -> bool:
    """Return whether a dotted name is defined at a module's top level."""
    path = ROOT.joinpath(*name.split("."))
    module = path.parent.with_suffix(".py")
    module = module if module.is_file() else path.parent / "__init__.py"
    if not module.is_file():
        return False
    names: set[str] = set()
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                names.add(node.name)
            case ast.Assign(targets=targets):
                names.update(target.id for target in targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=each)):
                names.add(each)
            case ast.Import() | ast.ImportFrom():
                names.update(alias.asname or alias.name for alias in node.names)
    return path.name in names


def broken_pointers(page: Path) -> Iterator[str]:
    """Return the paths and dotted names in a page's code spans that do not exist."""
    for span in CODE.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        for word in span.split():
            word = word.partition("::")[0].rstrip(".,:;")
            is_broken_path = PATH.match(word) and not any(ROOT.glob(word))
            is_broken_path = is_broken_path or (MODULE.match(word) and word not in module_paths())
            if is_broken_path or (is_dotted(word) and not exists(word)):
                yield f"`{span}`: {word} does not exist"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pointers_exist(page: Path) -> None:
    found = [*broken_links(page), *broken_pointers(page)]
    if found:
        pytest.fail(f"{page.relative_to(ROOT)} points to nothing:\n  " + "\n  ".join(found), pytrace=False)
