"""Formats sizes, rates, durations, counts and ratios for people."""

from __future__ import annotations

from pspd.text.sizes import size_text

__all__ = ["count_text", "duration_text", "percent_text", "rate_text", "ratio_text", "size_text"]


def rate_text(bytes_per_second: float) -> str:
    """Return a rate in MiB/s, so that rates are easy to compare; below 0.1 MiB/s, return it in KiB/s."""
    mib_per_second = bytes_per_second / (1 << 20)
    return f"{mib_per_second:.1f} MiB/s" if mib_per_second >= 0.1 else f"{bytes_per_second / 1024:.1f} KiB/s"


def duration_text(seconds: float) -> str:
    """Return a duration in fitting units: ``30 ms``, ``0.4 s``, ``5 min 3 s``, ``2 h 10 min``, ``3 d 4 h``."""
    if seconds < 0.1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def count_text(count: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun: ``1 hit``, ``2 hits``.

    Args:
        count: the number.
        one: the singular of the noun.
        many: the plural of the noun; None for the singular with an s.
    """
    return f"{count} {one if count == 1 else many or f'{one}s'}"


def percent_text(part: float, whole: float) -> str:
    """Return a part as a percentage of the whole, rounded down so that 100 % means all.

    Args:
        part: the part.
        whole: the whole; if it is 0, the result is ``-``.
    """
    return f"{int(1000 * part / whole) / 10:.1f} %" if whole else "-"


def ratio_text(part: float, whole: float) -> str:
    """Return the ratio of two amounts with two decimals.

    Args:
        part: the dividend.
        whole: the divisor; if it is 0, the result is ``-``.
    """
    return f"{part / whole:.2f}" if whole else "-"
