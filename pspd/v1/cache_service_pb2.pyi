from pspd.v1 import network_pb2 as _network_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetCacheRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetCacheResponse(_message.Message):
    __slots__ = ("cache",)
    CACHE_FIELD_NUMBER: _ClassVar[int]
    cache: _network_pb2.Cache
    def __init__(self, cache: _Optional[_Union[_network_pb2.Cache, _Mapping]] = ...) -> None: ...

class ClearCacheRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ClearCacheResponse(_message.Message):
    __slots__ = ("cache", "dropped_chunk_count")
    CACHE_FIELD_NUMBER: _ClassVar[int]
    DROPPED_CHUNK_COUNT_FIELD_NUMBER: _ClassVar[int]
    cache: _network_pb2.Cache
    dropped_chunk_count: int
    def __init__(self, cache: _Optional[_Union[_network_pb2.Cache, _Mapping]] = ..., dropped_chunk_count: _Optional[int] = ...) -> None: ...

class ResizeCacheRequest(_message.Message):
    __slots__ = ("capacity_bytes",)
    CAPACITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    capacity_bytes: int
    def __init__(self, capacity_bytes: _Optional[int] = ...) -> None: ...

class ResizeCacheResponse(_message.Message):
    __slots__ = ("cache",)
    CACHE_FIELD_NUMBER: _ClassVar[int]
    cache: _network_pb2.Cache
    def __init__(self, cache: _Optional[_Union[_network_pb2.Cache, _Mapping]] = ...) -> None: ...
