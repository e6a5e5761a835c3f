"""Tables and plots of benchmark results."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from scripts.benchmarks.tools import Seconds, Tool

DOCS = Path(__file__).resolve().parents[2] / "docs"
OURS = "PSP"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a tool: seconds by name, or an error."""

    setting: str
    tool: str
    seconds: Seconds
    error: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """The times of one tool in one setting, in seconds."""

    name: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        return f"{self.median:.2f} s ({min(self.values):.2f} to {max(self.values):.2f})"


def series_of(runs: Iterable[Run]) -> list[Series]:
    """Return the times of each tool in one setting, and of PSP's exchange alone, in the order in which they ran."""
    found: dict[str, list[float]] = {}
    for run in runs:
        if run.tool == OURS and run.seconds:
            found.setdefault(f"{OURS}, exchange", []).append(run.seconds["exchange"])
        if run.seconds:
            found.setdefault(run.tool, []).append(run.seconds["whole"])
    return [Series(name, tuple(values)) for name, values in found.items()]


def table(runs: list[Run]) -> str:
    """Return a table of medians, spread, and ratios to PSP and to PSP's exchange."""
    series = sorted(series_of(runs), key=lambda each: each.median)
    ours = {each.name: each.median for each in series if each.name in (f"{OURS}, exchange", OURS)}
    lines = [
        "| tool | median (minimum to maximum) | PSP's exchange / this tool | PSP / this tool |",
        "|---|---|---|---|",
    ]
    for each in series:
        ratios = [f"{took / each.median:.2f}" for took in ours.values()] or ["", ""]
        lines.append(f"| {each.name} | {each} | {' | '.join(ratios)} |")
    failed = [f"{run.tool}: {run.error}" for run in runs if run.error]
    return "\n".join(lines + [f"\nFailed and not repeated: {failure}" for failure in failed])


def write_page(runs: list[Run], tools: list[Tool]) -> None:
    """Write docs/benchmarks.md, and a plot for each setting.

    Args:
        runs: all results.
        tools: the tools that ran.
    """
    parts = [
        "# Benchmarks",
        "How long it takes until every client has a file, with PSP and with other tools. "
        "`scripts/bench --write` makes this page.",
        "Each heading gives the file's size, the number of clients and the links: *unshaped* links are as fast as the "
        "machine, a speed limits each host's link in both directions, and *loopback* means that all run on one host. "
        "Hosts are network namespaces on one bridge, all on one machine. Every copy is compared with the source.",
        f"Each tool runs once per round, in {max(Counter((run.setting, run.tool) for run in runs).values())} rounds, "
        "and each round begins with another tool. Times on such a machine vary, so compare the ratios within one "
        "table: below 1, PSP is faster.",
        "On slow links the server's link limits PSP, because it carries n-1 copies: 64 MiB to 8 clients over 200 "
        "Mbit/s take at least 18.8 s. BitTorrent and multicast do not have this limit and are faster there.",
        "The tools:",
        f"- **{OURS}, exchange**: the part of PSP's time after seeding.\n"
        + "\n".join(f"- **{tool.name}**: {tool.set_up}." for tool in tools),
    ]
    for setting in dict.fromkeys(run.setting for run in runs):
        of_setting = [run for run in runs if run.setting == setting]
        image = DOCS / "benchmarks" / f"{setting.replace(', ', '-').replace(' ', '-').replace('/', '')}.svg"
        plot(series_of(of_setting), setting, image)
        parts += [f"## {setting}", f"![{setting}](benchmarks/{image.name})", table(of_setting)]
    (DOCS / "benchmarks.md").write_text("\n\n".join(parts) + "\n")


def plot(series: list[Series], title: str, image: Path) -> None:
    """Draw a bar for each tool, with a dot for each run.

    Args:
        series: the times of each tool.
        title: the setting.
        image: the file to write.
    """
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    series = sorted(series, key=lambda each: -each.median)
    figure, axes = pyplot.subplots(figsize=(7, 0.4 * len(series) + 1), layout="constrained")
    colours = ["tab:orange" if each.name.startswith(OURS) else "tab:gray" for each in series]
    axes.barh([each.name for each in series], [each.median for each in series], color=colours)
    for index, each in enumerate(series):
        axes.plot(each.values, [index] * len(each.values), ".", color="black", markersize=4)
    axes.set_xlabel("seconds until every client has the file: median, and each run")
    axes.set_title(title)
    image.parent.mkdir(exist_ok=True)
    figure.savefig(image, metadata={"Date": None})
    pyplot.close(figure)
