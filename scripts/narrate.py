"""Runs a whole PSP network on this machine and explains what it did; ``scripts/demo`` starts it."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from textwrap import fill
from typing import Any

from pspd.errors import Exit, PspError
from pspd.host import streams

ROOT = Path(__file__).resolve().parent.parent
CLIENT_COUNT = 8
DEFAULT_FILE = ROOT / "pspd" / "core" / "model" / "manifest.py"
Json = dict[str, Any]

STEPS = (
    (
        "Divided",
        "The server divided the file's {chunks} of 1024 bytes among {clients}: disjoint shares of {share} each that "
        "cover the file, one for every client. Seeding took {seeding}.",
    ),
    (
        "Forgotten",
        "When every client held its share, the server forgot the file: {left} of it remained there. From then on "
        "the file existed only in parts, one at each client.",
    ),
    (
        "Requested",
        "Each client requested the missing chunks from the server by UDP: {requests}. Including broadcasts, {again} "
        "were sent again because no answer came in time.",
    ),
    (
        "Hit",
        "{hits} were in the server's cache of {capacity}, which evicts the least recently read chunks. The server "
        "delivered them over TCP. {aggregated} more were already being fetched for another client: those requests "
        "waited for the same fetch.",
    ),
    (
        "Missed",
        "{misses} were not in the cache, those of the seeding included. For these the server sent broadcasts, "
        "{broadcasts} in all. A client that held the chunks sent them to the server over TCP; the others did not "
        "answer.",
    ),
    (
        "Forwarded",
        "{contributed} came from clients this way, and {duplicates} that came twice were dropped. The server cached "
        "what it received and delivered it to every client that waited: {delivered} in all. Its cache never held "
        "more than {high_water}, and evicted {evictions}.",
    ),
    (
        "Done",
        "{complete} completed and verified the file, {exchange} after the server forgot it.",
    ),
)
"""What happens in a PSP network: titles, and paragraphs with placeholders for the results of a run."""


class DemoFailed(Exception):
    """The demonstration failed; the message is one line."""


def main(arguments: list[str]) -> int:
    """Run the demonstration, and return the exit code."""
    streams.prepare()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, raise_interrupt)
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        print("usage: scripts/demo [FILE]", file=sys.stderr)
        return 2
    source = Path(arguments[0]) if arguments else DEFAULT_FILE
    if not source.is_file():
        print(f"demo: {source} is not a file: name an existing file", file=sys.stderr)
        return 2
    try:
        with tempfile.TemporaryDirectory(prefix="psp-demo-") as folder:
            demonstrate(source, Path(folder))
        sys.stdout.flush()
    except (DemoFailed, PspError) as failure:
        print(f"demo: {failure}", file=sys.stderr)
        return 1
    except OSError as error:
        where = "no folder for temporary files: set TMPDIR to one that can be written to"
        print(f"demo: {error.strerror}: {error.filename or where}", file=sys.stderr)
        return 1
    except streams.ReaderGone:
        return Exit.READER_GONE
    except KeyboardInterrupt as interrupt:
        return 128 + (interrupt.args[0] if interrupt.args else signal.SIGINT)
    return 0


def raise_interrupt(number: int, _frame: object) -> None:
    """End the demonstration as Ctrl-C does.

    Args:
        number: the number of the signal.
        _frame: unused.
    """
    raise KeyboardInterrupt(number)


def demonstrate(source: Path, folder: Path) -> None:
    """Distribute a file and explain what happened.

    Args:
        source: the file.
        folder: the folder for the copies.

    Raises:
        DemoFailed: the network did not finish, the server kept a part, or a copy differs.
    """
    say("", "A PSP network: one server, which stores no file, and eight clients.")
    say("", f"The file: {source.name}, {plural(source.stat().st_size, 'byte')}.")
    answer = run(source, folder)
    results = figures(answer)
    for number, (title, body) in enumerate(STEPS, 1):
        print(f"\n {number}  {title}")
        say("    ", body.format_map(results))
    if answer["file"]["cached_bytes_when_seeded"]:
        raise DemoFailed("the server still held a part of the seeded file")
    print("\n =  The proof")
    compare(source, folder)


def run(source: Path, folder: Path) -> Json:
    """Run ``pspctl run``: start a network, seed a file, wait for all copies, and stop the network.

    Args:
        source: the file.
        folder: the folder for the copies.

    Returns:
        The JSON output of ``pspctl run``.
    """
    pspctl = Path(sysconfig.get_path("scripts")) / "pspctl"
    command = [pspctl, "run", source, "--clients", str(CLIENT_COUNT), "--to", folder, "-o", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            output, _ = process.communicate()
        except BaseException:
            process.terminate()  # it stops its daemons before it exits
            raise
    if process.returncode != 0:
        raise DemoFailed(f"pspctl run ended with {process.returncode}: its message is above")
    answer: Json = json.loads(output)
    return answer


def figures(answer: Json) -> dict[str, str]:
    """Return the results of a run as text for STEPS."""
    file, cache, seconds = answer["file"], answer["cache"], answer["seconds"]
    traffic = file["traffic"]
    least, rest = divmod(file["chunk_count"], file["client_count"])
    contributed = traffic["contributed_bytes"] - traffic["seeding_contributed_bytes"]
    delivered = traffic["delivered_bytes"] - traffic["seeding_delivered_bytes"]
    return {
        "chunks": plural(file["chunk_count"], "chunk"),
        "clients": plural(file["client_count"], "client"),
        "share": f"{least} or {plural(least + 1, 'chunk')}" if rest else plural(least, "chunk"),
        "seeding": f"{seconds['seeding']:.3f} s",
        "left": plural(file["cached_bytes_when_seeded"], "byte"),
        "requests": plural(traffic["request_datagrams"], "datagram"),
        "again": plural(traffic["retransmit_count"], "datagram"),
        "hits": plural(cache["hit_count"], "chunk"),
        "aggregated": plural(cache["join_count"], "chunk"),
        "misses": plural(cache["miss_count"], "chunk"),
        "capacity": plural(cache["capacity_bytes"], "byte"),
        "broadcasts": plural(traffic["broadcast_datagrams"], "datagram"),
        "contributed": plural(contributed, "byte"),
        "duplicates": plural(traffic["duplicate_bytes"], "byte"),
        "high_water": plural(cache["high_water_bytes"], "byte"),
        "evictions": plural(cache["eviction_count"], "chunk"),
        "delivered": plural(delivered, "byte"),
        "complete": f"{file['complete_client_count']} of {plural(file['client_count'], 'client')}",
        "exchange": f"{seconds['exchange']:.3f} s",
    }


def compare(source: Path, folder: Path) -> None:
    """Print the digest of the original and of every copy.

    Args:
        source: the original.
        folder: where the copies are.

    Raises:
        DemoFailed: a copy is missing or differs.
    """
    expected = sha256(source)
    print(f"    {expected}  {source.name}, the original")
    copies = sorted(
        path
        for path in folder.rglob(source.name)
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts[:-1])
    )
    different = 0
    for copy in copies:
        found = sha256(copy)
        different += found != expected
        print(f"    {found}  {copy.relative_to(folder)}{'' if found == expected else '   DIFFERS'}")
    if different or len(copies) != CLIENT_COUNT:
        raise DemoFailed(f"{len(copies)} copies of {CLIENT_COUNT} are there, and {different} of them differ")
    print(f"\n    {CLIENT_COUNT} copies, each byte for byte the original.")


def sha256(path: Path) -> str:
    """Return the SHA-256 digest of a file, which PSP itself does not use."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def plural(count: int, noun: str) -> str:
    """Return a count with its noun, such as ``1 chunk`` or ``12,345 chunks``.

    Args:
        count: the number.
        noun: the noun in the singular.
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def say(indent: str, text: str) -> None:
    """Print a paragraph.

    Args:
        indent: the indentation of each line.
        text: the paragraph.
    """
    print(fill(text, 88, initial_indent=indent, subsequent_indent=indent), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
