"""Receiving deliveries in parts that are stored and verified while they are in the processor's cache."""

from __future__ import annotations

from collections.abc import Callable

from pspd.core.client.machine import ClientMachine
from pspd.core.model.manifest import CHUNK_BYTES, FileId
from pspd.core.model.storage import Storage
from pspd.core.wire.frames import Frame
from pspd.net.driver import now_ns
from pspd.net.link import Link

PART_CHUNKS = 1024
"""A part ends at a multiple of this, which is also the end of a unit, so that each unit is verified from memory."""


class DeliveryParts:
    """Provides memory for the deliveries of each link, and stores what arrives in it.

    Args:
        machine: is told what is stored (R10).
        storage: stores and verifies the chunks.
        failed: called with the error if a file's chunks cannot be stored.
    """

    def __init__(self, machine: ClientMachine, storage: Storage, failed: Callable[[FileId, Exception], None]) -> None:
        self._machine = machine
        self._storage = storage
        self._failed = failed
        self._parts: dict[Link, tuple[Frame, memoryview]] = {}

    def allocate(self, link: Link, frame: Frame, start: int) -> memoryview:
        """Return memory for the next part of a delivery.

        Only the last part has the number of the delivery, because the delivery is complete with it.

        Args:
            link: on which it comes.
            frame: the head of the delivery.
            start: the first chunk of the part.
        """
        stop = min(frame.stop, start - start % PART_CHUNKS + PART_CHUNKS)
        if stop == frame.stop:
            length = frame.length - (start - frame.start) * CHUNK_BYTES
            part = frame if start == frame.start else frame._replace(start=start, length=length)
        else:
            length = (stop - start) * CHUNK_BYTES
            part = frame._replace(start=start, stop=stop, length=length, number=0, echo=0)
        buffer = self._parts[link][1] if link in self._parts else memoryview(b"")
        if len(buffer) < length:
            buffer = memoryview(bytearray(length))
        self._parts[link] = (part, buffer)
        return buffer[:length]

    def store(self, link: Link) -> Frame:
        """Store and verify the part that a link has received, and return its head."""
        part, buffer = self._parts[link]
        if self._machine.takes(part.file_id):  # the file may have been removed or declined in the meantime
            try:
                written = self._storage.write(part.file_id, part.start, part.stop, buffer[: part.length])
                self._machine.delivery_stored(part, written, now_ns())
            except Exception as error:  # any error concerns this file only
                self._failed(part.file_id, error)
        return part

    def forget(self, link: Link) -> None:
        """Free the memory of a link."""
        self._parts.pop(link, None)
