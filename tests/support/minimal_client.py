"""A client written from ``docs/protocol.md`` and the control API alone: it follows the page's checklist.

It shares no code with the daemons. ``python -m tests.support.minimal_client SERVER FOLDER NAME LOSS`` runs it
until it is killed. LOSS is the fraction of its datagrams that it drops in each direction.
"""

from __future__ import annotations

import queue
import random
import select
import socket
import struct
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from blake3 import blake3

from pspd.v1 import membership_service_pb2 as api
from pspd.v1 import membership_service_pb2_grpc as services

CHUNK = 1024
HELLO, HELLO_ACK, REQUEST, BROADCAST = 1, 2, 3, 4
LINK, DELIVERY, CONTRIBUTION = 16, 17, 18
REPEATED, DOWNLINK_OK = 1, 4
OWNERS = 2**64 - 1
HELLO_SECONDS, REQUEST_SECONDS = 1.0, 0.5


class File:
    """One file: which chunks are stored, and the digests that verify them."""

    def __init__(self, manifest: Any) -> None:
        self.name, self.size = manifest.name, manifest.size_bytes
        name = self.name.encode()
        self.mode = manifest.mode or 0o644
        version = b"psp-manifest-2\0" + struct.pack(">H", manifest.mode) if manifest.mode else b"psp-manifest-1\0"
        head = version + struct.pack(">QH", self.size, len(name))
        self.file_id = blake3(head + name + manifest.block_digests).digest()
        self.chunks = -(-self.size // CHUNK)
        self.data = bytearray(self.size)
        self.stored = [False] * self.chunks
        self.held = [False] * self.chunks
        self.units = list(self._units(manifest))
        self.shares: list[tuple[int, int]] = []
        self.division = self.acknowledged = self.number = 0
        self.exchanging = self.complete = self.share_reported = False
        self.requested_at = 0.0

    def _units(self, manifest: Any) -> Iterator[tuple[int, int, bytes]]:
        step, count = self._block_bytes() // CHUNK, manifest.share_count
        boundaries = sorted({index * self.chunks // count for index in range(1, count)})
        cuts = [boundary for boundary in boundaries if boundary % step and boundary != self.chunks]
        piece = 0
        for block, start in enumerate(range(0, self.chunks, step)):
            stop = min(start + step, self.chunks)
            inside = [cut for cut in cuts if start < cut < stop]
            if not inside:
                yield start, stop, manifest.block_digests[32 * block :][:32]
            for low, high in zip([start, *inside], [*inside, stop], strict=True) if inside else ():
                yield low, high, manifest.cut_digests[32 * piece :][:32]
                piece += 1

    def _block_bytes(self) -> int:
        def smallest(count: int) -> int:
            size = 1024
            while size < -(-self.size // count):
                size *= 2
            return size

        return max(min(smallest(2048), 65536), smallest(1048576))

    def store(self, start: int, stop: int, payload: bytes) -> None:
        """Store a delivery, and verify the units that it completes."""
        self.data[start * CHUNK : start * CHUNK + len(payload)] = payload
        self.stored[start:stop] = [True] * (stop - start)
        for low, high, digest in self.units:
            if low < stop and start < high and all(self.stored[low:high]) and not all(self.held[low:high]):
                good = blake3(bytes(self.data[low * CHUNK : high * CHUNK])).digest() == digest
                self.stored[low:high] = self.held[low:high] = [good] * (high - low)

    def covers(self, start: int, stop: int) -> bool:
        """Return whether every chunk of a range is held."""
        return stop <= self.chunks and all(self.held[start:stop])

    def wanted(self) -> list[tuple[int, int]]:
        """Return the ranges to request."""
        spans = [(0, self.chunks)] if self.exchanging else self.shares
        missing = [chunk for start, stop in spans for chunk in range(start, stop) if not self.stored[chunk]]
        runs: list[tuple[int, int]] = []
        for chunk in missing:
            if runs and runs[-1][1] == chunk:
                runs[-1] = (runs[-1][0], chunk + 1)
            else:
                runs.append((chunk, chunk + 1))
        return runs


class Client:
    """One session."""

    def __init__(self, server: str, folder: Path, name: str, loss: float) -> None:
        self.host, port = server.rsplit(":", 1)
        self.folder, self.loss = folder, loss
        folder.mkdir(parents=True, exist_ok=True)
        self.stub = services.MembershipServiceStub(grpc.insecure_channel(f"{self.host}:{port}"))
        self.parameters = self.stub.GetParameters(api.GetParametersRequest()).parameters
        self.listener = socket.create_server((self.host, 0))
        joined = self.stub.Join(
            api.JoinRequest(
                name=name,
                role=api.MEMBER_ROLE_CLIENT,
                instance_id=uuid.uuid4().bytes,
                delivery_port=0 if self.parameters.kept_links else self.listener.getsockname()[1],
            )
        )
        self.session, self.lease = joined.session_id, joined.lease_ms / 1000
        self.server = (self.host, joined.data_port)
        self.files: dict[bytes, File] = {}
        self.streams: dict[socket.socket, bytearray] = {}
        self.answered: set[int] = set()
        self.requests = self.hellos = 0
        self.downlink_ok = False
        self.hello_at = self.renewed_at = 0.0
        self.datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.events: queue.Queue[Any] = queue.Queue()
        threading.Thread(target=self._receive_events, daemon=True).start()
        if self.parameters.kept_links:
            self.link = socket.create_connection(self.server)
            self.link.sendall(self._header(LINK) + bytes(56))
            self.streams[self.link] = bytearray()

    def _receive_events(self) -> None:
        for event in self.stub.Attend(api.AttendRequest(session_id=self.session)):
            self.events.put(event)

    def run(self) -> None:
        """Handle datagrams, connections, events and timers forever."""
        print("ready", flush=True)
        while True:
            readable, _, _ = select.select([self.datagrams, self.listener, *self.streams], [], [], 0.01)
            for each in readable:
                if each is self.datagrams:
                    self._receive_datagram()
                elif each is self.listener:
                    self.streams[self.listener.accept()[0]] = bytearray()
                else:
                    self._receive_frames(each)
            while not self.events.empty():
                self._handle_event(self.events.get())
            self._run_timers(time.monotonic())

    def _run_timers(self, now: float) -> None:
        if now >= self.hello_at:
            self.hellos += 1
            self._send(self._header(HELLO) + struct.pack(">II", self.hellos, 1000 if self.downlink_ok else 0))
            self.hello_at = now + HELLO_SECONDS
        if now > self.renewed_at + self.lease / 4:
            self.renewed_at = now
            self.stub.RenewLease(api.RenewLeaseRequest(session_id=self.session))
        for file in self.files.values():
            if not file.complete and file.wanted() and now > file.requested_at + REQUEST_SECONDS:
                self._request(file, REPEATED)

    def _header(self, kind: int, flags: int = 0) -> bytes:
        return struct.pack(">2sBBIQ16x", b"PS", 1, kind, flags, self.session)

    def _send(self, data: bytes) -> None:
        if random.random() >= self.loss:
            self.datagrams.sendto(data, self.server)

    def _request(self, file: File, flags: int = 0) -> None:
        file.requested_at = time.monotonic()
        self.requests += 1
        file.number = self.requests
        narrow = self.parameters.window_max_chunks == 1
        ranges = file.wanted()[: self.parameters.request_ranges]
        ranges = [(start, start + 1) for start, _ in ranges] if narrow else ranges
        window = self.parameters.window_min_chunks
        body = struct.pack(">32sIQIH", file.file_id, file.number, file.acknowledged, window, len(ranges))
        spans = b"".join(struct.pack(">II", *span) for span in ranges)
        self._send(self._header(REQUEST, flags | (DOWNLINK_OK if self.downlink_ok else 0)) + body + spans)

    def _advance(self, file: File) -> None:
        """Request more of a file, and report a milestone that it has reached."""
        self._request(file)
        if file.exchanging and all(file.held):
            if not file.complete:
                part = self.folder / f".{file.name}"
                part.write_bytes(file.data)
                part.chmod(file.mode)
                part.rename(self.folder / file.name)
            file.complete = True
            self._report(file, api.FILE_MILESTONE_COMPLETE)
        elif not file.exchanging and not file.share_reported and all(file.covers(*share) for share in file.shares):
            file.share_reported = True
            self._report(file, api.FILE_MILESTONE_SHARE_HELD)

    def _report(self, file: File, milestone: Any) -> None:
        report = api.FileReport(
            file_id=file.file_id,
            milestone=milestone,
            share_chunk_count=sum(stop - start for start, stop in file.shares),
            division=file.division,
            request_number=file.number,
        )
        self.stub.ReportFiles(api.ReportFilesRequest(session_id=self.session, reports=[report]))

    def _handle_event(self, event: Any) -> None:
        match event.WhichOneof("event"):
            case "file_assigned":
                assigned, new = event.file_assigned, File(event.file_assigned.manifest)
                file = self.files.setdefault(new.file_id, new)
                file.shares = [(share.start, share.stop) for share in assigned.shares]
                file.division, file.exchanging, file.share_reported = (
                    assigned.division,
                    assigned.exchange_started,
                    False,
                )
                self._advance(file)
            case "exchange_started":
                file = self.files[event.exchange_started.file_id]
                file.exchanging = True
                self._advance(file)

    def _receive_datagram(self) -> None:
        data, source = self.datagrams.recvfrom(2048)
        if random.random() < self.loss or source != self.server or data[8:16] != self._header(0)[8:16]:
            return
        if data[3] == HELLO_ACK and not self.downlink_ok:
            self.hello_at = 0.0
        self.downlink_ok = True
        if data[3] == BROADCAST and (file := self.files.get(data[32:64])) is not None:
            number, count = struct.unpack_from(">QH", data, 64)
            if number not in self.answered:
                for start, stop, responder in struct.iter_unpack(">IIQ", data[74 : 74 + 16 * count]):
                    self._answer(file, number, start, stop, responder)

    def _answer(self, file: File, number: int, start: int, stop: int, responder: int) -> None:
        spans = [(start, stop)] if responder in (0, self.session) else []
        if responder == OWNERS:
            spans = [(max(start, low), min(stop, high)) for low, high in file.shares if low < stop and start < high]
        for low, high in spans:
            if file.covers(low, high):
                self.answered.add(number)
                payload = bytes(file.data[low * CHUNK : high * CHUNK])
                body = struct.pack(">32sIIIQI", file.file_id, low, high, len(payload), number, 0)
                frame = self._header(CONTRIBUTION) + body + payload
                if self.parameters.kept_links:
                    self.link.sendall(frame)
                else:
                    with socket.create_connection(self.server) as own:
                        own.sendall(frame)

    def _receive_frames(self, stream: socket.socket) -> None:
        data = stream.recv(1 << 16)
        buffer = self.streams[stream]
        buffer += data
        while len(buffer) >= 88:
            file_id, start, stop, length, number, _echo = struct.unpack_from(">32sIIIQI", buffer, 32)
            if len(buffer) < 88 + length:
                break
            payload = bytes(buffer[88 : 88 + length])
            del buffer[: 88 + length]
            file = self.files.get(file_id)
            if file is not None:
                file.store(start, stop, payload)
                file.acknowledged = max(file.acknowledged, number)
                self._advance(file)
        if not data:
            del self.streams[stream]
            stream.close()


if __name__ == "__main__":
    Client(sys.argv[1], Path(sys.argv[2]), sys.argv[3], float(sys.argv[4])).run()
