"""Makes rich's output safe to print: unprintable characters in names from other machines become escapes."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment

from pspd.text.plain import plain_lines


@dataclass(frozen=True, slots=True)
class Plain:
    """Something that rich can draw, made safe to print: colours stay, and unprintable characters become escapes."""

    content: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the content's segments with safe text."""
        for segment in console.render(self.content, options):
            yield segment if segment.control else Segment(plain_lines(segment.text), segment.style)
