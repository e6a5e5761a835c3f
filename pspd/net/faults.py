"""A bad network on demand: datagrams that are lost, doubled and reordered as they come in. For tests and lessons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from random import Random

from pspd.errors import BadArgument
from pspd.text.addresses import Address

Receive = Callable[[bytes, Address], None]


@dataclass(frozen=True, slots=True)
class Faults:
    """Probabilities between 0 and 1, each for every datagram that comes in.

    Attributes:
        loss: it is dropped.
        duplicate: it comes twice.
        reorder: it comes only after the next one.
        seed: of the dice.
    """

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    seed: int = 0

    @staticmethod
    def parse(text: str) -> Faults:
        """Faults from ``loss=0.3,duplicate=0.1,reorder=0.1,seed=7``; what is left out is 0.

        Raises:
            BadArgument: something in it is not of that form.
        """
        values: dict[str, float] = {}
        for part in filter(None, text.split(",")):
            name, _, value = part.partition("=")
            try:
                values[name] = float(value)
            except ValueError:
                raise BadArgument(f"faults {text!r}: {part!r} has no number, write for example loss=0.3") from None
            is_chance = name in ("loss", "duplicate", "reorder") and 0 <= values[name] <= 1
            if not is_chance and not (name == "seed" and isfinite(values[name])):
                raise BadArgument(f"faults {text!r}: {part!r} is none of loss, duplicate, reorder (0 to 1), seed")
        seed = int(values.pop("seed", 0))
        return Faults(**values, seed=seed)


class FaultyReceiver:
    """Stands between a datagram socket and whoever receives from it."""

    def __init__(self, faults: Faults, receive: Receive) -> None:
        self._faults = faults
        self._receive = receive
        self._random = Random(faults.seed)
        self._held: tuple[bytes, Address] | None = None

    def __call__(self, data: bytes, source: Address) -> None:
        faults, dice = self._faults, self._random
        if dice.random() < faults.loss:
            return
        if self._held is None and dice.random() < faults.reorder:
            self._held = (data, source)
            return
        self._receive(data, source)
        if dice.random() < faults.duplicate:
            self._receive(data, source)
        if self._held is not None:
            held, self._held = self._held, None
            self._receive(*held)
