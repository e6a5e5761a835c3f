"""The wire format: encoded messages are decoded faithfully, and invalid bytes are refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pspd.core.model.ranges import Range
from pspd.core.wire.datagrams import (
    BROADCAST_RANGES_MAX,
    DATAGRAM_BYTES_MAX,
    EVERY_HOLDER,
    REQUEST_RANGES_MAX,
    AskedRange,
    Broadcast,
    Datagram,
    Hello,
    HelloAck,
    Request,
    RequestAck,
    decode_datagram,
    encode_broadcast_body,
    encode_broadcast_head,
    encode_datagram,
)
from pspd.core.wire.frames import FRAME_BYTES, FRAME_PAYLOAD_BYTES_MAX, Frame, decode_frame, encode_frame
from pspd.core.wire.header import VERSION, DropReason, Kind, WireError

HEADER_BYTES = 32
FILE_ID = bytes(range(32))
SESSION = 0x0102030405060708

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
file_ids = st.binary(min_size=32, max_size=32)
ranges = st.tuples(u32, u32).filter(lambda pair: pair[0] != pair[1]).map(lambda pair: Range(*sorted(pair)))
requests = st.builds(
    Request,
    u64,
    file_ids,
    u32,
    u64,
    u32,
    st.lists(ranges, max_size=REQUEST_RANGES_MAX).map(tuple),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
asked = st.builds(lambda span, responder: AskedRange(*span, responder), ranges, u64)
broadcasts = st.builds(Broadcast, u64, file_ids, u64, st.lists(asked, max_size=BROADCAST_RANGES_MAX).map(tuple))
hellos = st.builds(Hello, u64, u32, u32) | st.builds(HelloAck, u64, u32, u32)
datagrams = hellos | requests | st.builds(RequestAck, u64, file_ids, u32, u32) | broadcasts
links = st.builds(lambda session: Frame(Kind.LINK, session), u64)
transfers = st.builds(
    lambda kind, session, file_id, span, length, number, echo: Frame(
        kind, session, file_id, *span, length, number, echo
    ),
    st.sampled_from([Kind.DELIVERY, Kind.CONTRIBUTION]),
    u64,
    file_ids,
    ranges,
    st.integers(1, FRAME_PAYLOAD_BYTES_MAX),
    u64,
    u32,
)

LARGEST: list[Datagram] = [
    Request(SESSION, FILE_ID, 1, 2, 3, (Range(4, 5),) * REQUEST_RANGES_MAX),
    Broadcast(SESSION, FILE_ID, 1, (AskedRange(4, 5, 6),) * BROADCAST_RANGES_MAX),
]


def header(kind: int, flags: int = 0) -> bytes:
    return b"PS" + bytes([VERSION, kind]) + flags.to_bytes(4, "big") + SESSION.to_bytes(8, "big") + bytes(16)


GOLDEN: list[tuple[Datagram, str]] = [
    (Hello(SESSION, 9, 1500), "50530101 00000000 0102030405060708" + "00" * 16 + "00000009 000005dc"),
    (HelloAck(SESSION, 9, 5000), "50530102 00000000 0102030405060708" + "00" * 16 + "00000009 00001388"),
    (
        Request(SESSION, FILE_ID, 3, 4, 5, (Range(6, 7), Range(0, 2)), repeated=True),
        "50530103 00000001 0102030405060708"
        + "00" * 16
        + FILE_ID.hex()
        + "00000003 0000000000000004 00000005 0002"
        + "00000006 00000007 00000000 00000002",
    ),
    (
        Request(SESSION, FILE_ID, 3, 4, 5, (), wants_ack=True),
        "50530103 00000002 0102030405060708" + "00" * 16 + FILE_ID.hex() + "00000003 0000000000000004 00000005 0000",
    ),
    (
        RequestAck(SESSION, FILE_ID, 3, 60000),
        "50530105 00000000 0102030405060708" + "00" * 16 + FILE_ID.hex() + "00000003 0000ea60",
    ),
    (
        Broadcast(SESSION, FILE_ID, 3, (AskedRange(6, 7, 8), AskedRange(0, 2, EVERY_HOLDER))),
        "50530104 00000000 0102030405060708"
        + "00" * 16
        + FILE_ID.hex()
        + "0000000000000003 0002"
        + "00000006 00000007 0000000000000008 00000000 00000002 0000000000000000",
    ),
]

GOLDEN_FRAMES: list[tuple[Frame, str]] = [
    (
        Frame(Kind.LINK, SESSION),
        "50530110 00000000 0102030405060708" + "00" * 16 + "00" * 32 + "00" * 24,
    ),
    (
        Frame(Kind.DELIVERY, SESSION, FILE_ID, 1, 3, 2000, 4, 5),
        "50530111 00000000 0102030405060708"
        + "00" * 16
        + FILE_ID.hex()
        + "00000001 00000003 000007d0 0000000000000004 00000005",
    ),
    (
        Frame(Kind.CONTRIBUTION, SESSION, FILE_ID, 1, 3, 2000, 4),
        "50530112 00000000 0102030405060708"
        + "00" * 16
        + FILE_ID.hex()
        + "00000001 00000003 000007d0 0000000000000004 00000000",
    ),
]


def refusal(decode: Any, data: bytes) -> DropReason:
    with pytest.raises(WireError) as caught:
        decode(data)
    assert str(caught.value) == caught.value.reason.value
    return caught.value.reason


class TestDatagrams:
    @given(datagrams)
    def test_datagram_is_decoded_as_it_was_encoded(self, datagram: Datagram) -> None:
        data = encode_datagram(datagram)
        assert len(data) <= DATAGRAM_BYTES_MAX
        assert decode_datagram(data) == datagram
        assert decode_datagram(memoryview(data)) == datagram
        assert type(decode_datagram(data)) is type(datagram)

    @pytest.mark.parametrize(("datagram", "golden"), GOLDEN)
    def test_datagram_has_the_documented_bytes(self, datagram: Datagram, golden: str) -> None:
        assert encode_datagram(datagram).hex() == golden.replace(" ", "")
        assert decode_datagram(bytes.fromhex(golden)) == datagram

    @pytest.mark.parametrize("datagram", LARGEST)
    def test_most_ranges_just_fit_into_a_datagram(self, datagram: Datagram) -> None:
        entry_bytes = 8 if isinstance(datagram, Request) else 16
        size_bytes = len(encode_datagram(datagram))
        assert size_bytes <= DATAGRAM_BYTES_MAX < size_bytes + entry_bytes

    def test_too_many_ranges_are_not_encoded(self) -> None:
        with pytest.raises(AssertionError):
            encode_datagram(Request(1, FILE_ID, 1, 1, 1, (Range(0, 1),) * (REQUEST_RANGES_MAX + 1)))
        with pytest.raises(AssertionError):
            encode_broadcast_body(FILE_ID, 1, (AskedRange(0, 1, 0),) * (BROADCAST_RANGES_MAX + 1))

    def test_broadcast_is_a_head_and_a_common_body(self) -> None:
        asked = (AskedRange(1, 2, 3),)
        whole = encode_datagram(Broadcast(SESSION, FILE_ID, 9, asked))
        assert encode_broadcast_head(SESSION) + encode_broadcast_body(FILE_ID, 9, asked) == whole

    def test_authentication_tag_is_ignored(self) -> None:
        data = bytearray(encode_datagram(Hello(1, 2, 3)))
        data[16:32] = b"t" * 16
        assert decode_datagram(data) == Hello(1, 2, 3)


class TestRefusedDatagrams:
    @given(datagrams, st.data())
    def test_truncated_datagram_is_refused(self, datagram: Datagram, data: st.DataObject) -> None:
        encoded = encode_datagram(datagram)
        cut = encoded[: data.draw(st.integers(0, len(encoded) - 1))]
        reason = refusal(decode_datagram, cut)
        assert reason in (DropReason.TOO_SHORT, DropReason.BAD_LENGTH)
        assert (reason is DropReason.TOO_SHORT) or len(cut) >= HEADER_BYTES

    @given(datagrams, st.binary(min_size=1, max_size=20))
    def test_trailing_bytes_are_refused(self, datagram: Datagram, tail: bytes) -> None:
        reason = refusal(decode_datagram, encode_datagram(datagram) + tail)
        assert reason in (DropReason.BAD_LENGTH, DropReason.TOO_LONG)

    @given(st.binary(max_size=DATAGRAM_BYTES_MAX + 10))
    def test_noise_is_refused_or_decoded_faithfully(self, noise: bytes) -> None:
        for data in (noise, header(len(noise) % 6) + noise):
            try:
                datagram = decode_datagram(data)
            except WireError:
                continue
            assert encode_datagram(datagram)[HEADER_BYTES : HEADER_BYTES + 4] == data[HEADER_BYTES:][:4]

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"", DropReason.TOO_SHORT),
            (header(Kind.HELLO)[:-1], DropReason.TOO_SHORT),
            (header(Kind.HELLO) + bytes(DATAGRAM_BYTES_MAX), DropReason.TOO_LONG),
            (b"XX" + header(Kind.HELLO)[2:] + bytes(8), DropReason.BAD_MAGIC),
            (b"PS\x02" + header(Kind.HELLO)[3:] + bytes(8), DropReason.BAD_VERSION),
            (header(0) + bytes(8), DropReason.UNKNOWN_KIND),
            (header(6) + bytes(8), DropReason.UNKNOWN_KIND),
            (header(Kind.DELIVERY) + bytes(60), DropReason.UNKNOWN_KIND),
            (header(Kind.HELLO) + bytes(7), DropReason.TOO_SHORT),
            (header(Kind.HELLO) + bytes(9), DropReason.BAD_LENGTH),
            (header(Kind.HELLO_ACK) + bytes(9), DropReason.BAD_LENGTH),
            (header(Kind.REQUEST_ACK) + bytes(39), DropReason.TOO_SHORT),
            (header(Kind.REQUEST) + bytes(49), DropReason.TOO_SHORT),
            (header(Kind.REQUEST) + bytes(49) + b"\1" + bytes(7), DropReason.BAD_LENGTH),
            (header(Kind.REQUEST) + bytes(49) + b"\1" + bytes(8), DropReason.BAD_RANGE),
            (header(Kind.BROADCAST) + bytes(41), DropReason.TOO_SHORT),
            (header(Kind.BROADCAST) + bytes(41) + b"\1" + bytes(15), DropReason.BAD_LENGTH),
            (header(Kind.BROADCAST) + bytes(41) + b"\1" + bytes(16), DropReason.BAD_RANGE),
            (header(Kind.BROADCAST) + bytes(40) + b"\xff\xff", DropReason.BAD_LENGTH),
        ],
    )
    def test_invalid_datagram_is_refused_with_a_reason(self, data: bytes, reason: DropReason) -> None:
        assert refusal(decode_datagram, data) is reason

    @pytest.mark.parametrize("span", [Range(5, 5), Range(6, 5)])
    def test_empty_or_reversed_range_is_refused(self, span: Range) -> None:
        request = encode_datagram(Request(1, FILE_ID, 1, 1, 1, (Range(0, 1), span)))
        broadcast = encode_datagram(Broadcast(1, FILE_ID, 1, (AskedRange(0, 1, 2), AskedRange(*span, 2))))
        assert refusal(decode_datagram, request) is DropReason.BAD_RANGE
        assert refusal(decode_datagram, broadcast) is DropReason.BAD_RANGE


class TestFrames:
    @given(links | transfers)
    def test_frame_is_decoded_as_it_was_encoded(self, frame: Frame) -> None:
        data = encode_frame(frame)
        assert len(data) == FRAME_BYTES
        assert decode_frame(data) == frame
        assert decode_frame(memoryview(data)) == frame

    @pytest.mark.parametrize(("frame", "golden"), GOLDEN_FRAMES)
    def test_frame_has_the_documented_bytes(self, frame: Frame, golden: str) -> None:
        assert encode_frame(frame).hex() == golden.replace(" ", "")
        assert decode_frame(bytes.fromhex(golden)) == frame

    @given(links | transfers, st.data())
    def test_truncated_frame_is_refused(self, frame: Frame, data: st.DataObject) -> None:
        cut = encode_frame(frame)[: data.draw(st.integers(0, FRAME_BYTES - 1))]
        assert refusal(decode_frame, cut) is DropReason.TOO_SHORT

    @given(st.binary(min_size=FRAME_BYTES - HEADER_BYTES, max_size=FRAME_BYTES - HEADER_BYTES))
    def test_noise_after_a_header_is_refused_or_decoded_faithfully(self, body: bytes) -> None:
        for kind in (Kind.LINK, Kind.DELIVERY, Kind.CONTRIBUTION):
            try:
                frame = decode_frame(header(kind) + body)
            except WireError:
                continue
            assert encode_frame(frame) == header(kind) + body

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"XX" + encode_frame(GOLDEN_FRAMES[0][0])[2:], DropReason.BAD_MAGIC),
            (b"PS\x09" + encode_frame(GOLDEN_FRAMES[0][0])[3:], DropReason.BAD_VERSION),
            (header(Kind.HELLO) + bytes(60), DropReason.UNKNOWN_KIND),
            (header(19) + bytes(60), DropReason.UNKNOWN_KIND),
            (header(Kind.DELIVERY) + bytes(61), DropReason.BAD_LENGTH),
        ],
    )
    def test_malformed_frame_is_refused(self, data: bytes, reason: DropReason) -> None:
        assert refusal(decode_frame, data) is reason

    @pytest.mark.parametrize(
        ("frame", "reason"),
        [
            (Frame(Kind.DELIVERY, 1, FILE_ID, 0, 1, FRAME_PAYLOAD_BYTES_MAX + 1), DropReason.TOO_LONG),
            (Frame(Kind.LINK, 1, length=FRAME_PAYLOAD_BYTES_MAX + 1), DropReason.TOO_LONG),
            (Frame(Kind.LINK, 1, length=1), DropReason.BAD_RANGE),
            (Frame(Kind.DELIVERY, 1, FILE_ID, 3, 3, 1), DropReason.BAD_RANGE),
            (Frame(Kind.CONTRIBUTION, 1, FILE_ID, 4, 3, 1), DropReason.BAD_RANGE),
            (Frame(Kind.CONTRIBUTION, 1, FILE_ID, 3, 4, 0), DropReason.BAD_RANGE),
        ],
    )
    def test_inconsistent_frame_is_refused(self, frame: Frame, reason: DropReason) -> None:
        assert refusal(decode_frame, encode_frame(frame)) is reason
