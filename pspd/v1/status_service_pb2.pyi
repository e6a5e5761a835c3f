from pspd.v1 import network_pb2 as _network_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetStatusRequest(_message.Message):
    __slots__ = ("file", "with_file_clients")
    FILE_FIELD_NUMBER: _ClassVar[int]
    WITH_FILE_CLIENTS_FIELD_NUMBER: _ClassVar[int]
    file: str
    with_file_clients: bool
    def __init__(self, file: _Optional[str] = ..., with_file_clients: _Optional[bool] = ...) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("server", "cache", "clients", "files")
    SERVER_FIELD_NUMBER: _ClassVar[int]
    CACHE_FIELD_NUMBER: _ClassVar[int]
    CLIENTS_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    server: _network_pb2.Server
    cache: _network_pb2.Cache
    clients: _containers.RepeatedCompositeFieldContainer[_network_pb2.Client]
    files: _containers.RepeatedCompositeFieldContainer[_network_pb2.File]
    def __init__(self, server: _Optional[_Union[_network_pb2.Server, _Mapping]] = ..., cache: _Optional[_Union[_network_pb2.Cache, _Mapping]] = ..., clients: _Optional[_Iterable[_Union[_network_pb2.Client, _Mapping]]] = ..., files: _Optional[_Iterable[_Union[_network_pb2.File, _Mapping]]] = ...) -> None: ...

class WatchStatusRequest(_message.Message):
    __slots__ = ("file", "with_file_clients", "interval_ms")
    FILE_FIELD_NUMBER: _ClassVar[int]
    WITH_FILE_CLIENTS_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    file: str
    with_file_clients: bool
    interval_ms: int
    def __init__(self, file: _Optional[str] = ..., with_file_clients: _Optional[bool] = ..., interval_ms: _Optional[int] = ...) -> None: ...

class WatchStatusResponse(_message.Message):
    __slots__ = ("snapshot", "server", "cache", "clients", "files")
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    CACHE_FIELD_NUMBER: _ClassVar[int]
    CLIENTS_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    snapshot: bool
    server: _network_pb2.Server
    cache: _network_pb2.Cache
    clients: _containers.RepeatedCompositeFieldContainer[_network_pb2.Client]
    files: _containers.RepeatedCompositeFieldContainer[_network_pb2.File]
    def __init__(self, snapshot: _Optional[bool] = ..., server: _Optional[_Union[_network_pb2.Server, _Mapping]] = ..., cache: _Optional[_Union[_network_pb2.Cache, _Mapping]] = ..., clients: _Optional[_Iterable[_Union[_network_pb2.Client, _Mapping]]] = ..., files: _Optional[_Iterable[_Union[_network_pb2.File, _Mapping]]] = ...) -> None: ...

class StopServerRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StopServerResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
