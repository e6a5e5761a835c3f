"""Injects network faults for tests and demonstrations: drops, duplicates and reorders received datagrams."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from random import Random

from pspd.errors import BadArgument
from pspd.text.addresses import Address

DatagramHandler = Callable[[bytes, Address], None]


@dataclass(frozen=True, slots=True)
class Faults:
    """The faults to inject. All probabilities are from 0 to 1.

    Attributes:
        loss: the probability that a received datagram is dropped.
        duplicate: the probability that a datagram that is neither dropped nor delayed is passed on twice.
        reorder: the probability that a datagram that is not dropped is delayed until the next datagram that is not
            dropped has been passed on. At most one datagram is delayed at a time.
        seed: the seed of the random numbers.
    """

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    seed: int = 0

    @staticmethod
    def parse(text: str) -> Faults:
        """Parse faults such as ``loss=0.3,duplicate=0.1,reorder=0.1,seed=7``; omitted values are 0.

        Raises:
            BadArgument: the text is malformed, or a value is out of range.
        """
        values: dict[str, float] = {}
        for part in filter(None, text.split(",")):
            name, _, value = part.partition("=")
            try:
                values[name] = float(value)
            except ValueError:
                raise BadArgument(f"faults {text!r}: {part!r} has no number: write for example loss=0.3") from None
            is_probability = name in ("loss", "duplicate", "reorder") and 0 <= values[name] <= 1
            if not is_probability and not (name == "seed" and isfinite(values[name])):
                raise BadArgument(
                    f"faults {text!r}: {part!r} is not allowed: set loss, duplicate or reorder from 0 to 1, or seed"
                )
        seed = int(values.pop("seed", 0))
        return Faults(**values, seed=seed)


class FaultyReceiver:
    """Applies faults to received datagrams, and passes on what remains.

    Args:
        faults: the faults to inject.
        on_datagram: called with each datagram that remains, and its sender's address.
    """

    def __init__(self, faults: Faults, on_datagram: DatagramHandler) -> None:
        self._faults = faults
        self._on_datagram = on_datagram
        self._random = Random(faults.seed)
        self._delayed: tuple[bytes, Address] | None = None

    def __call__(self, data: bytes, source: Address) -> None:
        """Drop, delay, pass on or duplicate a datagram. After passing it on, pass on an earlier delayed datagram.

        Args:
            data: the datagram.
            source: the address of its sender.
        """
        faults, random = self._faults, self._random
        if random.random() < faults.loss:
            return
        if self._delayed is None and random.random() < faults.reorder:
            self._delayed = (data, source)
            return
        self._on_datagram(data, source)
        if random.random() < faults.duplicate:
            self._on_datagram(data, source)
        if self._delayed is not None:
            delayed, self._delayed = self._delayed, None
            self._on_datagram(*delayed)
