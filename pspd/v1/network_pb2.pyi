from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RequestOrder(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REQUEST_ORDER_UNSPECIFIED: _ClassVar[RequestOrder]
    REQUEST_ORDER_CURSOR: _ClassVar[RequestOrder]
    REQUEST_ORDER_SEQUENTIAL: _ClassVar[RequestOrder]
    REQUEST_ORDER_RANDOM: _ClassVar[RequestOrder]

class ClientState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CLIENT_STATE_UNSPECIFIED: _ClassVar[ClientState]
    CLIENT_STATE_CONNECTED: _ClassVar[ClientState]
    CLIENT_STATE_LOST: _ClassVar[ClientState]

class FileState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FILE_STATE_UNSPECIFIED: _ClassVar[FileState]
    FILE_STATE_SEEDING: _ClassVar[FileState]
    FILE_STATE_SEEDED: _ClassVar[FileState]
    FILE_STATE_DISTRIBUTING: _ClassVar[FileState]
    FILE_STATE_STALLED: _ClassVar[FileState]
    FILE_STATE_COMPLETE: _ClassVar[FileState]
REQUEST_ORDER_UNSPECIFIED: RequestOrder
REQUEST_ORDER_CURSOR: RequestOrder
REQUEST_ORDER_SEQUENTIAL: RequestOrder
REQUEST_ORDER_RANDOM: RequestOrder
CLIENT_STATE_UNSPECIFIED: ClientState
CLIENT_STATE_CONNECTED: ClientState
CLIENT_STATE_LOST: ClientState
FILE_STATE_UNSPECIFIED: FileState
FILE_STATE_SEEDING: FileState
FILE_STATE_SEEDED: FileState
FILE_STATE_DISTRIBUTING: FileState
FILE_STATE_STALLED: FileState
FILE_STATE_COMPLETE: FileState

class ChunkRange(_message.Message):
    __slots__ = ("start", "stop")
    START_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    start: int
    stop: int
    def __init__(self, start: _Optional[int] = ..., stop: _Optional[int] = ...) -> None: ...

class Manifest(_message.Message):
    __slots__ = ("name", "size_bytes", "block_digests", "share_count", "cut_digests", "folder", "mode")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    BLOCK_DIGESTS_FIELD_NUMBER: _ClassVar[int]
    SHARE_COUNT_FIELD_NUMBER: _ClassVar[int]
    CUT_DIGESTS_FIELD_NUMBER: _ClassVar[int]
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    name: str
    size_bytes: int
    block_digests: bytes
    share_count: int
    cut_digests: bytes
    folder: bool
    mode: int
    def __init__(self, name: _Optional[str] = ..., size_bytes: _Optional[int] = ..., block_digests: _Optional[bytes] = ..., share_count: _Optional[int] = ..., cut_digests: _Optional[bytes] = ..., folder: _Optional[bool] = ..., mode: _Optional[int] = ...) -> None: ...

class Holding(_message.Message):
    __slots__ = ("file_id", "ranges", "complete")
    FILE_ID_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    file_id: bytes
    ranges: _containers.RepeatedCompositeFieldContainer[ChunkRange]
    complete: bool
    def __init__(self, file_id: _Optional[bytes] = ..., ranges: _Optional[_Iterable[_Union[ChunkRange, _Mapping]]] = ..., complete: _Optional[bool] = ...) -> None: ...

class Parameters(_message.Message):
    __slots__ = ("profile", "frame_chunks", "window_min_chunks", "window_max_chunks", "request_ranges", "kept_links", "all_holders_answer", "order")
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    FRAME_CHUNKS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_MIN_CHUNKS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_MAX_CHUNKS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_RANGES_FIELD_NUMBER: _ClassVar[int]
    KEPT_LINKS_FIELD_NUMBER: _ClassVar[int]
    ALL_HOLDERS_ANSWER_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    profile: str
    frame_chunks: int
    window_min_chunks: int
    window_max_chunks: int
    request_ranges: int
    kept_links: bool
    all_holders_answer: bool
    order: RequestOrder
    def __init__(self, profile: _Optional[str] = ..., frame_chunks: _Optional[int] = ..., window_min_chunks: _Optional[int] = ..., window_max_chunks: _Optional[int] = ..., request_ranges: _Optional[int] = ..., kept_links: _Optional[bool] = ..., all_holders_answer: _Optional[bool] = ..., order: _Optional[_Union[RequestOrder, str]] = ...) -> None: ...

class Server(_message.Message):
    __slots__ = ("address", "version", "profile", "uptime_seconds", "data_port", "dropped_counts")
    class DroppedCountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    UPTIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DATA_PORT_FIELD_NUMBER: _ClassVar[int]
    DROPPED_COUNTS_FIELD_NUMBER: _ClassVar[int]
    address: str
    version: str
    profile: str
    uptime_seconds: float
    data_port: int
    dropped_counts: _containers.ScalarMap[str, int]
    def __init__(self, address: _Optional[str] = ..., version: _Optional[str] = ..., profile: _Optional[str] = ..., uptime_seconds: _Optional[float] = ..., data_port: _Optional[int] = ..., dropped_counts: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Cache(_message.Message):
    __slots__ = ("capacity_bytes", "used_bytes", "high_water_bytes", "hit_count", "miss_count", "join_count", "eviction_count")
    CAPACITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    HIGH_WATER_BYTES_FIELD_NUMBER: _ClassVar[int]
    HIT_COUNT_FIELD_NUMBER: _ClassVar[int]
    MISS_COUNT_FIELD_NUMBER: _ClassVar[int]
    JOIN_COUNT_FIELD_NUMBER: _ClassVar[int]
    EVICTION_COUNT_FIELD_NUMBER: _ClassVar[int]
    capacity_bytes: int
    used_bytes: int
    high_water_bytes: int
    hit_count: int
    miss_count: int
    join_count: int
    eviction_count: int
    def __init__(self, capacity_bytes: _Optional[int] = ..., used_bytes: _Optional[int] = ..., high_water_bytes: _Optional[int] = ..., hit_count: _Optional[int] = ..., miss_count: _Optional[int] = ..., join_count: _Optional[int] = ..., eviction_count: _Optional[int] = ...) -> None: ...

class Client(_message.Message):
    __slots__ = ("name", "address", "state", "srtt_ms", "source")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SRTT_MS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    address: str
    state: ClientState
    srtt_ms: float
    source: bool
    def __init__(self, name: _Optional[str] = ..., address: _Optional[str] = ..., state: _Optional[_Union[ClientState, str]] = ..., srtt_ms: _Optional[float] = ..., source: _Optional[bool] = ...) -> None: ...

class Traffic(_message.Message):
    __slots__ = ("request_datagrams", "broadcast_datagrams", "contributed_bytes", "delivered_bytes", "duplicate_bytes", "retransmit_count", "seeding_contributed_bytes", "seeding_delivered_bytes", "corrupt_bytes")
    REQUEST_DATAGRAMS_FIELD_NUMBER: _ClassVar[int]
    BROADCAST_DATAGRAMS_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTED_BYTES_FIELD_NUMBER: _ClassVar[int]
    DELIVERED_BYTES_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_BYTES_FIELD_NUMBER: _ClassVar[int]
    RETRANSMIT_COUNT_FIELD_NUMBER: _ClassVar[int]
    SEEDING_CONTRIBUTED_BYTES_FIELD_NUMBER: _ClassVar[int]
    SEEDING_DELIVERED_BYTES_FIELD_NUMBER: _ClassVar[int]
    CORRUPT_BYTES_FIELD_NUMBER: _ClassVar[int]
    request_datagrams: int
    broadcast_datagrams: int
    contributed_bytes: int
    delivered_bytes: int
    duplicate_bytes: int
    retransmit_count: int
    seeding_contributed_bytes: int
    seeding_delivered_bytes: int
    corrupt_bytes: int
    def __init__(self, request_datagrams: _Optional[int] = ..., broadcast_datagrams: _Optional[int] = ..., contributed_bytes: _Optional[int] = ..., delivered_bytes: _Optional[int] = ..., duplicate_bytes: _Optional[int] = ..., retransmit_count: _Optional[int] = ..., seeding_contributed_bytes: _Optional[int] = ..., seeding_delivered_bytes: _Optional[int] = ..., corrupt_bytes: _Optional[int] = ...) -> None: ...

class MissingRange(_message.Message):
    __slots__ = ("range", "last_holder")
    RANGE_FIELD_NUMBER: _ClassVar[int]
    LAST_HOLDER_FIELD_NUMBER: _ClassVar[int]
    range: ChunkRange
    last_holder: str
    def __init__(self, range: _Optional[_Union[ChunkRange, _Mapping]] = ..., last_holder: _Optional[str] = ...) -> None: ...

class FileClient(_message.Message):
    __slots__ = ("name", "held_chunk_count", "complete", "share_chunk_count", "held_ranges", "refusal", "share_held", "share_idle_seconds")
    NAME_FIELD_NUMBER: _ClassVar[int]
    HELD_CHUNK_COUNT_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    SHARE_CHUNK_COUNT_FIELD_NUMBER: _ClassVar[int]
    HELD_RANGES_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    SHARE_HELD_FIELD_NUMBER: _ClassVar[int]
    SHARE_IDLE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    held_chunk_count: int
    complete: bool
    share_chunk_count: int
    held_ranges: _containers.RepeatedCompositeFieldContainer[ChunkRange]
    refusal: str
    share_held: bool
    share_idle_seconds: float
    def __init__(self, name: _Optional[str] = ..., held_chunk_count: _Optional[int] = ..., complete: _Optional[bool] = ..., share_chunk_count: _Optional[int] = ..., held_ranges: _Optional[_Iterable[_Union[ChunkRange, _Mapping]]] = ..., refusal: _Optional[str] = ..., share_held: _Optional[bool] = ..., share_idle_seconds: _Optional[float] = ...) -> None: ...

class MissingClient(_message.Message):
    __slots__ = ("name", "away_seconds", "given_up")
    NAME_FIELD_NUMBER: _ClassVar[int]
    AWAY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    GIVEN_UP_FIELD_NUMBER: _ClassVar[int]
    name: str
    away_seconds: float
    given_up: bool
    def __init__(self, name: _Optional[str] = ..., away_seconds: _Optional[float] = ..., given_up: _Optional[bool] = ...) -> None: ...

class File(_message.Message):
    __slots__ = ("file_id", "name", "size_bytes", "chunk_count", "state", "client_count", "complete_client_count", "min_holder_count", "missing_ranges", "traffic", "clients", "seeding_seconds", "exchange_seconds", "cached_bytes", "cached_bytes_when_seeded", "held_back", "seeded", "folder", "rate_bytes_per_second", "eta_seconds", "missing_clients", "recipient_count")
    FILE_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CHUNK_COUNT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_COUNT_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_CLIENT_COUNT_FIELD_NUMBER: _ClassVar[int]
    MIN_HOLDER_COUNT_FIELD_NUMBER: _ClassVar[int]
    MISSING_RANGES_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_FIELD_NUMBER: _ClassVar[int]
    CLIENTS_FIELD_NUMBER: _ClassVar[int]
    SEEDING_SECONDS_FIELD_NUMBER: _ClassVar[int]
    EXCHANGE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CACHED_BYTES_FIELD_NUMBER: _ClassVar[int]
    CACHED_BYTES_WHEN_SEEDED_FIELD_NUMBER: _ClassVar[int]
    HELD_BACK_FIELD_NUMBER: _ClassVar[int]
    SEEDED_FIELD_NUMBER: _ClassVar[int]
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    RATE_BYTES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    ETA_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MISSING_CLIENTS_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_COUNT_FIELD_NUMBER: _ClassVar[int]
    file_id: bytes
    name: str
    size_bytes: int
    chunk_count: int
    state: FileState
    client_count: int
    complete_client_count: int
    min_holder_count: int
    missing_ranges: _containers.RepeatedCompositeFieldContainer[MissingRange]
    traffic: Traffic
    clients: _containers.RepeatedCompositeFieldContainer[FileClient]
    seeding_seconds: float
    exchange_seconds: float
    cached_bytes: int
    cached_bytes_when_seeded: int
    held_back: bool
    seeded: bool
    folder: bool
    rate_bytes_per_second: float
    eta_seconds: float
    missing_clients: _containers.RepeatedCompositeFieldContainer[MissingClient]
    recipient_count: int
    def __init__(self, file_id: _Optional[bytes] = ..., name: _Optional[str] = ..., size_bytes: _Optional[int] = ..., chunk_count: _Optional[int] = ..., state: _Optional[_Union[FileState, str]] = ..., client_count: _Optional[int] = ..., complete_client_count: _Optional[int] = ..., min_holder_count: _Optional[int] = ..., missing_ranges: _Optional[_Iterable[_Union[MissingRange, _Mapping]]] = ..., traffic: _Optional[_Union[Traffic, _Mapping]] = ..., clients: _Optional[_Iterable[_Union[FileClient, _Mapping]]] = ..., seeding_seconds: _Optional[float] = ..., exchange_seconds: _Optional[float] = ..., cached_bytes: _Optional[int] = ..., cached_bytes_when_seeded: _Optional[int] = ..., held_back: _Optional[bool] = ..., seeded: _Optional[bool] = ..., folder: _Optional[bool] = ..., rate_bytes_per_second: _Optional[float] = ..., eta_seconds: _Optional[float] = ..., missing_clients: _Optional[_Iterable[_Union[MissingClient, _Mapping]]] = ..., recipient_count: _Optional[int] = ...) -> None: ...
