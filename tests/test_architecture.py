"""Checks of the architecture: which module may import which, and sizes, names and docstrings.

The sources are parsed, not imported. A failure names the file, the line, the rule and what would be right.
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
    "pspd.cli": ("pspd.cli", "pspd.daemon", "pspd.net.faults", "pspd.host", *LOWER),
    "pspd.cli.arguments": (),
    "pspd.__main__": ("pspd.cli",),
    "pspd": (),
    "pspctl": (
        *("pspctl", "pspd.v1", "pspd.errors", "pspd.text", "pspd.cli.arguments", "pspd.core", "pspd.daemon.source"),
        "pspd.daemon.spawn",
        *("pspd.rpc.client", "pspd.net.loop", "pspd.store.source", "pspd.store.digests", "pspd.host"),
    ),
    "pspctl.commands.simulate": ("pspctl", "pspd.sim", "pspd.cli.arguments", *LOWER),
}
"""What each layer may import from the project, besides the version in ``pspd``. A module's layer is the longest
matching name."""

CORE_LIBRARY = {
    *("__future__", "abc", "bisect", "collections", "collections.abc", "contextlib", "dataclasses", "enum"),
    *("functools", "heapq", "itertools", "math", "operator", "random", "struct", "typing"),
}
"""Standard modules that neither block nor read a clock, a disk or a network."""

CORE_FORBIDDEN_CALLS = {"open", "print", "input", "exec", "eval", "id", "breakpoint", "__import__"}
"""Builtins that do I/O, or whose result differs from run to run."""

OWNERS: dict[str, tuple[str, ...]] = {
    "asyncio": ("pspd.net", "pspd.rpc", "pspd.daemon", "pspd.cli", "pspctl"),
    "grpc": ("pspd.rpc", "pspd.daemon"),
    "grpc_health": ("pspd.rpc", "pspd.daemon"),
    "grpc_reflection": ("pspd.rpc", "pspd.daemon"),
    "click": ("pspd.cli", "pspctl"),
    "rich": ("pspctl",),
}
"""Libraries, and the only layers that may import them."""

SOCKET_MAKERS = {
    *("socket", "socketpair", "fromfd", "create_connection", "create_server", "create_unix_server"),
    *("create_datagram_endpoint", "open_connection", "start_server"),
}
"""Functions of ``socket`` and ``asyncio`` that open sockets."""

VAGUE_NAMES = {"util", "utils", "helper", "helpers", "common", "misc", "manager", "managers", "base"}
"""Module names that do not say what is inside."""


@dataclass(frozen=True)
class Module:
    """One parsed source file."""

    name: str
    path: Path
    lines: int
    tree: ast.Module

    @property
    def layer(self) -> str:
        """The longest key of ARROWS that contains this module; empty if there is none."""
        return max((layer for layer in ARROWS if within(self.name, layer)), key=len, default="")

    @property
    def room(self) -> str:
        """The package that contains this module; the module itself at the top of ``pspd``."""
        package = self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]
        return self.name if package == "pspd" else package

    def at(self, node: ast.AST) -> str:
        """Return the file and line of a node."""
        return f"{self.path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


@dataclass(frozen=True)
class Import:
    """One imported name: ``from module import name``, or ``import module`` with no name."""

    module: str
    name: str
    node: ast.AST

    @property
    def target(self) -> str:
        """The imported module: a name imported from a package may be a module itself."""
        full = f"{self.module}.{self.name}"
        return full if self.name and full in project_names() else self.module


def within(name: str, package: str) -> bool:
    """Return whether a dotted name is a package or lies in it; the bare ``pspd`` contains only itself."""
    if package == "pspd":
        return name == "pspd"
    return name == package or name.startswith(package + ".")


def dotted(path: Path) -> str:
    """Return the name under which Python imports a file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def parsed(path: Path) -> Module:
    """Return the parsed module of a file."""
    text = path.read_text(encoding="utf-8")
    return Module(dotted(path), path, text.count("\n"), ast.parse(text, str(path)))


@cache
def modules() -> tuple[Module, ...]:
    """Return every module of the project that is not generated."""
    found = (parsed(path) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))
    return tuple(module for module in found if not any(within(module.name, package) for package in GENERATED))


@cache
def everything() -> tuple[Module, ...]:
    """Return the modules of the project, the tests and the scripts."""
    others = [path for folder in ("tests", "scripts") for path in sorted((ROOT / folder).rglob("*.py"))]
    return modules() + tuple(parsed(path) for path in others)


@cache
def project_names() -> frozenset[str]:
    """Return the dotted name of every module and package of the project, generated ones included."""
    return frozenset(dotted(path) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imports_of(module: Module) -> Iterator[Import]:
    """Return everything that a module imports, at its top or inside functions."""
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
    """Return every function and method of a module, nested ones included."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def refuse(violations: list[str], rule: str) -> None:
    """Fail if there are violations, with one line for each."""
    if violations:
        pytest.fail(rule + "\n  " + "\n  ".join(violations), pytrace=False)


def layer_of_library(name: str) -> str:
    """Return the first part of a dotted name."""
    return name.partition(".")[0]


def test_imports_follow_the_arrows() -> None:
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
    refuse(violations, "Imports against the arrows (see CONTRIBUTING.md):")


def test_every_layer_is_known() -> None:
    """A new top-level package needs a place in ARROWS."""
    violations = [
        f"{module.path.relative_to(ROOT)}: {module.name} has no layer" for module in modules() if not module.layer
    ]
    refuse(violations, "Modules without a layer; add it to ARROWS and to CONTRIBUTING.md:")


def test_command_imports_only_types_from_the_core() -> None:
    """``pspctl`` may use the core's classes and constants, but none of its functions."""
    violations = [
        f"{module.at(found.node)}: imports {found.name or 'the module'} from {found.module}"
        for module in modules()
        if module.layer == "pspctl"
        for found in imports_of(module)
        if within(found.module, "pspd.core") and not found.name[:1].isupper()
    ]
    refuse(violations, "pspctl may import only classes and constants (capitalized names) from pspd.core:")


def test_core_imports_are_pure() -> None:
    """The core uses no socket, no clock, no asyncio and no randomness of its own."""
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
    refuse(violations, "pspd.core is sans-I/O; its caller must do this and pass in the result:")


def is_compiled(module: Module) -> bool:
    """Return whether mypyc compiles the module."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    compiled = build["targets"]["wheel"]["hooks"]["mypyc"]["include"]
    return any(module.path.is_relative_to(ROOT / path) for path in compiled)


def test_compiled_handlers_use_one_name_per_error_type() -> None:
    """In mypyc a name has one type in a function, so a second handler's error would have the first one's type."""
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


def test_core_calls_no_io() -> None:
    """The core opens no file, prints nothing, and creates no unseeded ``Random()``."""
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
    refuse(violations, "pspd.core must give the same outputs for the same inputs, and do no I/O:")


def fields_of(module: Module) -> set[str]:
    """Return the names of the fields of a module's classes."""
    classes = [node for node in module.tree.body if isinstance(node, ast.ClassDef)]
    fields = {
        node.target.id
        for each in classes
        for node in each.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    own = (node for each in classes for node in ast.walk(each) if isinstance(node, ast.Attribute))
    return fields | {node.attr for node in own if isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self"}


def test_server_fields_have_one_writer() -> None:
    """In ``pspd.core.server`` only the module that defines a field assigns it."""
    violations = [
        f"{module.at(node)}: {ast.unparse(node)}"
        for module in modules()
        if within(module.name, "pspd.core.server")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute)
        and not isinstance(node.ctx, ast.Load)
        and ast.unparse(node.value) != "self"
        and node.attr not in fields_of(module)
    ]
    refuse(violations, "Let the record's own class change these fields:")


def test_libraries_stay_in_their_layers() -> None:
    """Only the layers in OWNERS may import a library."""
    violations = []
    for module in modules():
        for found in imports_of(module):
            owners = OWNERS.get(layer_of_library(found.module))
            if owners and not any(within(module.name, owner) for owner in owners):
                library = layer_of_library(found.module)
                violations.append(f"{module.at(found.node)}: {library} is for {', '.join(owners)}")
    refuse(violations, "Libraries outside their layers:")


def test_only_net_opens_sockets() -> None:
    """Other layers may handle addresses; only ``net`` opens sockets."""
    violations = [
        f"{module.at(node)}: calls {ast.unparse(node.func)}()"
        for module in modules()
        if module.layer != "pspd.net"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name | ast.Attribute)
        and (node.func.id if isinstance(node.func, ast.Name) else node.func.attr) in SOCKET_MAKERS
    ]
    refuse(violations, "Only pspd.net may open sockets:")


def test_functions_are_short() -> None:
    """No function is longer than 70 lines, docstring included; the aim is 40."""
    violations = []
    for module in everything():
        for function in functions_of(module):
            lines = (function.end_lineno or function.lineno) - function.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                violations.append(f"{module.at(function)}: {function.name} has {lines} lines")
    refuse(violations, f"Functions of more than {FUNCTION_LINES_MAX} lines; split them by idea:")


def test_modules_are_short() -> None:
    """No module is longer than 600 lines; the aim is 400."""
    violations = [
        f"{module.path.relative_to(ROOT)}: {module.lines} lines"
        for module in everything()
        if module.lines > MODULE_LINES_MAX
    ]
    refuse(violations, f"Modules of more than {MODULE_LINES_MAX} lines; split them by idea:")


def test_names_are_meaningful() -> None:
    """No module is called ``utils`` or similar, and no function name begins with ``get_``."""
    violations = []
    for module in everything():
        if set(module.name.rpartition(".")[2].split("_")) & VAGUE_NAMES:
            violations.append(f"{module.path.relative_to(ROOT)}: name it after the one idea it holds")
    for module in modules():
        for node in module.tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("get_"):
                violations.append(f"{module.at(node)}: {node.name}: name what it returns, without get_")
    refuse(violations, "Vague names:")


def circles(graph: dict[str, set[str]]) -> set[frozenset[str]]:
    """Return the groups of nodes that all reach each other (strongly connected components of two or more)."""

    def reachable(start: str) -> set[str]:
        found: set[str] = set()
        pending = [start]
        while pending:
            new = graph.get(pending.pop(), set()) - found
            found |= new
            pending += new
        return found

    reach = {node: reachable(node) for node in graph}
    groups = {frozenset(other for other in reach[node] if node in reach.get(other, ())) | {node} for node in graph}
    return {group for group in groups if len(group) > 1}


def circle_texts(graph: dict[str, set[str]]) -> list[str]:
    """Return a line for each circle."""
    return [" <-> ".join(sorted(circle)) for circle in circles(graph)]


def test_no_import_circle_among_files() -> None:
    """No module imports itself through others, not even for type checking or inside functions."""
    graph = {
        module.name: {found.target for found in imports_of(module)} & project_names() - {module.name}
        for module in modules()
    }
    refuse(circle_texts(graph), "Modules that import each other:")


def test_no_import_circle_among_packages() -> None:
    """No package's modules import modules that import theirs."""
    rooms = {module.name: module.room for module in modules()}
    graph: dict[str, set[str]] = {room: set() for room in rooms.values()}
    for module in modules():
        targets = {rooms[found.target] for found in imports_of(module) if found.target in rooms}
        graph[module.room] |= targets - {module.room}
    refuse(circle_texts(graph), "Packages that import each other:")


def public_functions(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Return the public functions of a module, and the public methods of its public classes."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node.body)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node


def lacks_args(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return whether a function needs an ``Args:`` section and has none.

    One that implements a protocol refers to it instead ("See ``Storage.write``"); the parameters of a command are
    documented by its options. gRPC prescribes the parameters of a servicer's method: a request, whose message the
    proto file documents, and the context of the call.
    """
    arguments = function.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    if names == ["self", "request", "context"]:
        return False
    count = len(names) - (names[:1] in (["self"], ["cls"]))
    text = ast.get_docstring(function) or ""
    is_exempt = any(ast.unparse(each).startswith(("click.", "overload")) for each in function.decorator_list)
    return count >= 2 and "Args:" not in text and not text.startswith("See ``") and not is_exempt


def test_public_functions_document_their_arguments() -> None:
    """Public functions and methods with two or more parameters have an ``Args:`` section."""
    violations = [
        f"{module.at(function)}: {function.name}"
        for module in modules()
        for function in public_functions(module.tree.body)
        if lacks_args(function)
    ]
    refuse(violations, "Public functions without Args:")
