"""Runs a whole PSP network on this machine and tells what it did; ``scripts/demo`` starts it."""

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
DEFAULT_FILE = ROOT / "pspd" / "core" / "manifest.py"
Json = dict[str, Any]

TALE = (
    (
        "Divided",
        "The server divided the file's {chunks} of 1024 bytes among {clients}: disjoint and exhaustive "
        "shares of {share} each, one for every client, nothing in common. That took {seeding}.",
    ),
    (
        "Forgotten",
        "When every share was held, the server forgot the file: {left} of it were left there. From this "
        "moment it existed only in pieces, one with each client.",
    ),
    (
        "Asked",
        "Each client found what it lacked and asked the server for it by UDP: {requests}. {again} had to be "
        "sent again, because no answer came in time.",
    ),
    (
        "Hit",
        "{hits} asked for lay in the server's cache of {capacity}, least recently read out first. They went "
        "straight to the client over TCP. {joins} more were on their way already, for somebody else: those "
        "requests waited for the same copy.",
    ),
    (
        "Missed",
        "{misses} did not lie there, the first way of each share included. For these the server sent "
        "broadcasts to the clients, {broadcasts} in all. A client that held what was wanted sent it to the "
        "server over TCP; one that did not kept silent.",
    ),
    (
        "Passed on",
        "{contributed} came from clients this way, and {duplicates} that came twice were dropped. The server "
        "cached what came and sent it to all who waited: {delivered} delivered. Its cache never held more "
        "than {high_water}, and dropped {evictions} to make room.",
    ),
    (
        "Done",
        "{complete} put the whole file together and verified it, {exchange} after the server forgot it.",
    ),
)
"""What happens in a PSP network, step by step: titles and paragraphs that take their figures from a run."""


class DemoFailed(Exception):
    """What went wrong, in one line."""


def main(arguments: list[str]) -> int:
    """Runs the demonstration; the answer is the exit code."""
    streams.prepare()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        print("usage: scripts/demo [FILE]", file=sys.stderr)
        return 2
    source = Path(arguments[0]) if arguments else DEFAULT_FILE
    if not source.is_file():
        print(f"demo: {source} is not a file: name one that is", file=sys.stderr)
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


def end(number: int, _frame: object) -> None:
    """Ends the demonstration as Ctrl-C does."""
    raise KeyboardInterrupt(number)


def demonstrate(source: Path, folder: Path) -> None:
    """Distributes ``source`` into ``folder`` and tells of it.

    Raises:
        DemoFailed: the network did not finish, the server kept something, or a copy is not the original.
    """
    say("", "A PSP network: one server, which keeps nothing, and eight clients.")
    say("", f"The file: {source.name}, {plural(source.stat().st_size, 'byte')}.")
    answer = run(source, folder)
    told = figures(answer)
    for number, (title, body) in enumerate(TALE, 1):
        print(f"\n {number}  {title}")
        say("    ", body.format_map(told))
    if answer["file"]["cached_bytes_when_seeded"]:
        raise DemoFailed("the server still held a part of the file when every share was held")
    print("\n =  The proof")
    compare(source, folder)


def run(source: Path, folder: Path) -> Json:
    """Has ``pspctl`` start a network, seed the file, wait until all have it, and stop it again."""
    pspctl = Path(sysconfig.get_path("scripts")) / "pspctl"
    command = [pspctl, "run", source, "--clients", str(CLIENT_COUNT), "--to", folder, "-o", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            output, _ = process.communicate()
        except BaseException:
            process.terminate()  # it stops its daemons, and is waited for
            raise
    if process.returncode != 0:
        raise DemoFailed(f"pspctl run ended with {process.returncode}: its message is above")
    answer: Json = json.loads(output)
    return answer


def figures(answer: Json) -> dict[str, str]:
    """The figures of a run, as the tale speaks of them."""
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
        "joins": plural(cache["join_count"], "chunk"),
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
    """Prints the digest of the original and of every copy.

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
    """The SHA-256 digest of a file: another one than PSP itself relies on, so that it proves something."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def plural(count: int, noun: str) -> str:
    """A count with its noun: ``1 chunk``, ``12,345 chunks``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def say(indent: str, text: str) -> None:
    """Prints a paragraph."""
    print(fill(text, 88, initial_indent=indent, subsequent_indent=indent), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
