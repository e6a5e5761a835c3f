"""The last step before a terminal: what servers and clients named is shown, and never obeyed."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment

from pspd.text.plain import plain_lines


@dataclass(frozen=True, slots=True)
class Plain:
    """Anything that can be drawn; its colours stay, and each character that is not printable becomes an escape."""

    content: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.content, options):
            yield segment if segment.control else Segment(plain_lines(segment.text), segment.style)
