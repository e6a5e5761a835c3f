"""Holds the house to its plan: which module may import which, and how large and how named things are.

Nothing is imported here: the sources are parsed. A message names the file, the line, the rule and what
would be right.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("pspd", "pspctl")
GENERATED = ("pspd.v1", "pspd.reflection_v1")

FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 600

LOWER = ("pspd.core", "pspd.errors", "pspd.text")
ARROWS: dict[str, tuple[str, ...]] = {
    "pspd.errors": (),
    "pspd.text": ("pspd.text", "pspd.errors"),
    "pspd.core": LOWER,
    "pspd.host": ("pspd.host", *LOWER),
    "pspd.net": ("pspd.net", "pspd.host.addresses", *LOWER),
    "pspd.store": ("pspd.store", *LOWER),
    "pspd.rpc": ("pspd.rpc", "pspd.v1", "pspd.reflection_v1", "pspd.host", *LOWER),
    "pspd.daemon": ("pspd.daemon", "pspd.rpc", "pspd.net", "pspd.store", "pspd.v1", "pspd.host", *LOWER),
    "pspd.sim": ("pspd.sim", "pspd.store.files.memory", "pspd.store.digests", *LOWER),
    "pspd.cli": ("pspd.cli", "pspd.daemon", "pspd.net.faults", "pspd.sim", "pspd.host", *LOWER),
    "pspd.cli.arguments": (),
    "pspd.__main__": ("pspd.cli",),
    "pspd": (),
    "pspctl": (
        *("pspctl", "pspd.v1", "pspd.errors", "pspd.text", "pspd.cli.arguments", "pspd.core", "pspd.daemon.source"),
        *("pspd.net.loop", "pspd.store.source", "pspd.store.digests", "pspd.host"),
    ),
    "pspctl.commands.simulate": ("pspctl", "pspd.sim", "pspd.cli.arguments", *LOWER),
}
"""What each layer may import of the project, besides the version in ``pspd``. A module's layer is the longest
name that fits."""

CORE_LIBRARY = {
    *("__future__", "abc", "bisect", "collections", "collections.abc", "contextlib", "dataclasses", "enum"),
    *("functools", "heapq", "itertools", "math", "operator", "random", "struct", "typing"),
}
"""The standard modules that neither block, nor look at a clock, a disk or a network."""

CORE_FORBIDDEN_CALLS = {"open", "print", "input", "exec", "eval", "id", "breakpoint", "__import__"}
"""Builtins that do I/O, or whose answer differs from run to run."""

OWNERS: dict[str, tuple[str, ...]] = {
    "asyncio": ("pspd.net", "pspd.rpc", "pspd.daemon", "pspd.cli", "pspctl"),
    "grpc": ("pspd.rpc", "pspd.daemon", "pspctl"),
    "grpc_health": ("pspd.rpc", "pspd.daemon", "pspctl"),
    "grpc_reflection": ("pspd.rpc", "pspd.daemon"),
    "click": ("pspd.cli", "pspctl"),
    "rich": ("pspctl",),
}
"""Libraries that belong to certain layers and must not spread from there."""

SOCKET_MAKERS = {
    *("socket", "socketpair", "fromfd", "create_connection", "create_server", "create_unix_server"),
    *("create_datagram_endpoint", "open_connection", "start_server"),
}
"""Functions of ``socket`` and methods of ``asyncio`` that open sockets."""

NAMELESS = {"util", "utils", "helper", "helpers", "common", "misc", "manager", "managers", "base"}
"""Module names that say nothing of what is inside."""


@dataclass(frozen=True)
class Module:
    """One parsed source file."""

    name: str
    path: Path
    lines: int
    tree: ast.Module

    @property
    def layer(self) -> str:
        """The longest key of ARROWS that this module lies in; empty if there is none."""
        return max((layer for layer in ARROWS if within(self.name, layer)), key=len, default="")

    def at(self, node: ast.AST) -> str:
        """Where a node stands, as editors like it."""
        return f"{self.path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


@dataclass(frozen=True)
class Import:
    """One imported name: ``from module import name``, or ``import module`` with no name."""

    module: str
    name: str
    node: ast.AST

    @property
    def target(self) -> str:
        """The project module or library that is meant: a name may itself be a module."""
        full = f"{self.module}.{self.name}"
        return full if self.name and full in project_names() else self.module


def within(name: str, package: str) -> bool:
    """Whether a dotted name is a package or lies inside it; the bare ``pspd`` holds only itself."""
    if package == "pspd":
        return name == "pspd"
    return name == package or name.startswith(package + ".")


def dotted(path: Path) -> str:
    """The name under which Python imports a file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def parsed(path: Path) -> Module:
    """The module that a file holds."""
    text = path.read_text(encoding="utf-8")
    return Module(dotted(path), path, text.count("\n"), ast.parse(text, str(path)))


@cache
def modules() -> tuple[Module, ...]:
    """Every module of the project that people wrote."""
    found = (parsed(path) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))
    return tuple(module for module in found if not any(within(module.name, package) for package in GENERATED))


@cache
def everything() -> tuple[Module, ...]:
    """The project's modules, the tests' and the scripts'."""
    others = [path for folder in ("tests", "scripts") for path in sorted((ROOT / folder).rglob("*.py"))]
    return modules() + tuple(parsed(path) for path in others)


@cache
def project_names() -> frozenset[str]:
    """The dotted name of every module and package of the project, generated ones included."""
    return frozenset(dotted(path) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imports_of(module: Module) -> Iterator[Import]:
    """Everything that a module imports, at its top or anywhere inside."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, "", node)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                is_package = module.path.name == "__init__.py"
                base = module.name.split(".")
                base = base[: len(base) - node.level + is_package]
                source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield Import(source, alias.name, node)


def functions_of(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method of a module, inner ones included."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def refuse(violations: list[str], rule: str) -> None:
    """Fails with every violation on a line of its own."""
    if violations:
        pytest.fail(rule + "\n  " + "\n  ".join(violations), pytrace=False)


def layer_of_library(name: str) -> str:
    """The library that an import comes from: its first name."""
    return name.partition(".")[0]


def test_arrows_point_one_way() -> None:
    """``cli -> daemon -> {rpc, net, store} -> core -> errors``, and so on: see ARROWS."""
    violations = []
    for module in modules():
        allowed = ARROWS.get(module.layer, ())
        for found in imports_of(module):
            if layer_of_library(found.target) not in PACKAGES:
                continue
            if not any(within(found.target, package) for package in (*allowed, "pspd")):
                violations.append(
                    f"{module.at(found.node)}: {module.layer or module.name} may not import {found.target}; "
                    f"it may import {', '.join(allowed) or 'nothing of the project'}"
                )
    refuse(violations, "An import points against the arrows (see CONTRIBUTING.md, The house):")


def test_every_layer_is_known() -> None:
    """A new top-level package must be given its place in ARROWS before it is used."""
    violations = [
        f"{module.path.relative_to(ROOT)}: {module.name} lies in no layer" for module in modules() if not module.layer
    ]
    refuse(violations, "Modules outside the plan; add their layer to ARROWS and to CONTRIBUTING.md:")


def test_the_command_takes_only_types_from_the_core() -> None:
    """``pspctl`` may name the core's classes and constants, but runs none of its functions."""
    violations = [
        f"{module.at(found.node)}: imports {found.name or 'the module'} from {found.module}"
        for module in modules()
        if module.layer == "pspctl"
        for found in imports_of(module)
        if within(found.module, "pspd.core") and not found.name[:1].isupper()
    ]
    refuse(violations, "pspctl may import only classes and constants (Names with a capital) from pspd.core:")


def test_the_core_is_pure() -> None:
    """No socket, no clock, no asyncio, no randomness of its own: only what CORE_LIBRARY names."""
    violations = []
    for module in modules():
        if module.layer != "pspd.core":
            continue
        for found in imports_of(module):
            if layer_of_library(found.module) in PACKAGES:
                continue
            if found.module not in CORE_LIBRARY:
                violations.append(f"{module.at(found.node)}: imports {found.module}, which is not in CORE_LIBRARY")
            elif found.module == "random" and found.name != "Random":
                violations.append(f"{module.at(found.node)}: only the class Random may be taken from random, seeded")
    refuse(violations, "pspd.core is sans-I/O; let its caller do this and pass in the result:")


def is_compiled(module: Module) -> bool:
    """Whether mypyc compiles the module."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    compiled = build["targets"]["wheel"]["hooks"]["mypyc"]["include"]
    return any(module.path.is_relative_to(ROOT / path) for path in compiled)


def test_compiled_handlers_name_each_error_type_apart() -> None:
    """In mypyc a name has one type in a function: a second handler's error would be taken for one of the first's."""
    violations = []
    for module in filter(is_compiled, modules()):
        for function in functions_of(module):
            types: dict[str, str] = {}
            for node in ast.walk(function):
                if isinstance(node, ast.ExceptHandler) and node.name and node.type:
                    caught = ast.unparse(node.type)
                    if types.setdefault(node.name, caught) != caught:
                        violations.append(f"{module.at(node)}: {node.name} is a {types[node.name]} in this function")
    refuse(violations, "mypyc would raise a TypeError in these handlers:")


def test_the_core_calls_nothing_that_acts() -> None:
    """No file is opened, nothing is printed, and no unseeded ``Random()`` is made in the core."""
    violations = []
    for module in modules():
        if module.layer != "pspd.core":
            continue
        for node in ast.walk(module.tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            if node.func.id in CORE_FORBIDDEN_CALLS:
                violations.append(f"{module.at(node)}: calls {node.func.id}()")
            elif node.func.id == "Random" and not node.args:
                violations.append(f"{module.at(node)}: Random() without a seed; take one as an argument")
    refuse(violations, "pspd.core must give the same outputs for the same inputs, and do nothing else:")


def test_libraries_stay_where_they_belong() -> None:
    """gRPC stays behind ``rpc``, the terminal in the commands, the event loop out of the core."""
    violations = []
    for module in modules():
        for found in imports_of(module):
            owners = OWNERS.get(layer_of_library(found.module))
            if owners and not any(within(module.name, owner) for owner in owners):
                library = layer_of_library(found.module)
                violations.append(f"{module.at(found.node)}: {library} is for {', '.join(owners)}")
    refuse(violations, "A library has left its layer:")


def test_only_net_opens_sockets() -> None:
    """Names and families of addresses may be spoken of elsewhere; sockets are made in ``net`` alone."""
    violations = [
        f"{module.at(node)}: calls {ast.unparse(node.func)}()"
        for module in modules()
        if module.layer != "pspd.net"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name | ast.Attribute)
        and (node.func.id if isinstance(node.func, ast.Name) else node.func.attr) in SOCKET_MAKERS
    ]
    refuse(violations, "Sockets belong into pspd.net:")


def test_functions_are_short() -> None:
    """No function passes 70 lines, docstring included; the aim is 40."""
    violations = []
    for module in everything():
        for function in functions_of(module):
            lines = (function.end_lineno or function.lineno) - function.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                violations.append(f"{module.at(function)}: {function.name} has {lines} lines")
    refuse(violations, f"Functions of more than {FUNCTION_LINES_MAX} lines; split them by idea:")


def test_modules_are_short() -> None:
    """No module passes 600 lines; the aim is 400."""
    violations = [
        f"{module.path.relative_to(ROOT)}: {module.lines} lines"
        for module in everything()
        if module.lines > MODULE_LINES_MAX
    ]
    refuse(violations, f"Modules of more than {MODULE_LINES_MAX} lines; split them by idea:")


def test_names_say_something() -> None:
    """No module is called ``utils`` or the like, and no function of ours begins with ``get_``."""
    violations = []
    for module in everything():
        if set(module.name.rpartition(".")[2].split("_")) & NAMELESS:
            violations.append(f"{module.path.relative_to(ROOT)}: name it after the one idea it holds")
    for module in modules():
        for node in module.tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("get_"):
                violations.append(f"{module.at(node)}: {node.name}: say what it gives, without get_")
    refuse(violations, "Names that say nothing:")


def test_what_is_public_is_documented() -> None:
    """Modules, and the public classes and functions at their top level, say what they mean."""
    violations = []
    for module in modules():
        if module.tree.body and not ast.get_docstring(module.tree):
            violations.append(f"{module.at(module.tree)}: the module has no docstring")
        for node in module.tree.body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if not node.name.startswith("_") and not ast.get_docstring(node):
                violations.append(f"{module.at(node)}: {node.name} has no docstring")
    refuse(violations, "Public things without a docstring:")
