"""``pspctl context``: name servers, and choose the one that commands talk to."""

from __future__ import annotations

import os
import shlex

import click

from pspctl import contexts
from pspctl.options import SERVER_VARIABLE, Group, Settings
from pspctl.output import print_note, show
from pspctl.ui.tables import contexts_table
from pspd.errors import BadArgument, NameTaken, NotFound
from pspd.text.addresses import full_address

NAME_CHARACTERS_MAX = 100


@click.group("context", cls=Group)
def context() -> None:
    """Name servers, and choose the one that commands talk to.

    --server and PSPCTL_SERVER take precedence over the chosen one.

    Example:
      pspctl context add lab lab0:7070
      pspctl context use lab
    """


@context.command("ls")
@click.pass_obj
def list_contexts(settings: Settings) -> None:
    """List the named servers; a star marks the current one.

    Example:
      pspctl context ls
    """
    _show(settings, contexts.load(), None)


@context.command("use")
@click.argument("name")
@click.pass_obj
def use(settings: Settings, name: str) -> None:
    """Make NAME the current context, for all later commands.

    Example:
      pspctl context use lab
    """
    known = _load_with(name)
    known.current = name
    contexts.save(known)
    _show(settings, known, f"commands now talk to {name}, {known.addresses[name]}")
    override = os.environ.get(SERVER_VARIABLE)
    if override and not settings.quiet and settings.output == "table":
        print_note(f"{SERVER_VARIABLE} takes precedence: commands talk to {override} until it is unset")


@context.command("add")
@click.argument("name")
@click.argument("address", metavar="HOST[:PORT]")
@click.pass_obj
def add(settings: Settings, name: str, address: str) -> None:
    """Store the server's address under NAME.

    Example:
      pspctl context add lab lab0:7070
    """
    if not 0 < len(name.strip()) <= NAME_CHARACTERS_MAX or not name.isprintable():
        shown = name[:NAME_CHARACTERS_MAX]
        raise BadArgument(f"context name {shown!r} is not 1 to {NAME_CHARACTERS_MAX} plain characters: give another")
    address = full_address(address)
    known = contexts.load()
    taken = known.addresses.get(name, address)
    if taken != address:
        removal = f"pspctl context rm {shlex.quote(name)}"
        raise NameTaken(f"{name} already names {taken}: remove it first with `{removal}`")
    known.addresses[name] = address
    contexts.save(known)
    _show(settings, known, f"{name} is {address}: use it with `pspctl context use {shlex.quote(name)}`")


@context.command("rm")
@click.argument("name")
@click.pass_obj
def remove(settings: Settings, name: str) -> None:
    """Remove the context NAME.

    Example:
      pspctl context rm lab
    """
    known = _load_with(name)
    del known.addresses[name]
    if known.current == name:
        known.current = None
    contexts.save(known)
    _show(settings, known, f"removed {name}")


def _load_with(name: str) -> contexts.Contexts:
    """Load the contexts; raise NotFound if no context has this name."""
    known = contexts.load()
    if name not in known.addresses:
        raise NotFound(f"no context is called {name!r}: see `pspctl context ls`")
    return known


def _show(settings: Settings, known: contexts.Contexts, sentence: str | None) -> None:
    """Print the contexts; in the table format, print `sentence` instead if it is given."""
    document = {
        "current": known.current,
        "contexts": [{"name": name, "address": address} for name, address in sorted(known.addresses.items())],
    }
    show(settings, document, lambda: sentence or contexts_table(known.current, known.addresses))
