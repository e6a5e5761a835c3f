from pspd.v1 import network_pb2 as _network_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AnnounceFileRequest(_message.Message):
    __slots__ = ("session_id", "manifest", "client_count", "replica_count", "stays")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    CLIENT_COUNT_FIELD_NUMBER: _ClassVar[int]
    REPLICA_COUNT_FIELD_NUMBER: _ClassVar[int]
    STAYS_FIELD_NUMBER: _ClassVar[int]
    session_id: int
    manifest: _network_pb2.Manifest
    client_count: int
    replica_count: int
    stays: bool
    def __init__(self, session_id: _Optional[int] = ..., manifest: _Optional[_Union[_network_pb2.Manifest, _Mapping]] = ..., client_count: _Optional[int] = ..., replica_count: _Optional[int] = ..., stays: _Optional[bool] = ...) -> None: ...

class AnnounceFileResponse(_message.Message):
    __slots__ = ("file_id", "share_count", "file")
    FILE_ID_FIELD_NUMBER: _ClassVar[int]
    SHARE_COUNT_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    file_id: bytes
    share_count: int
    file: _network_pb2.File
    def __init__(self, file_id: _Optional[bytes] = ..., share_count: _Optional[int] = ..., file: _Optional[_Union[_network_pb2.File, _Mapping]] = ...) -> None: ...

class DivideFileRequest(_message.Message):
    __slots__ = ("session_id", "manifest", "hold_back")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    HOLD_BACK_FIELD_NUMBER: _ClassVar[int]
    session_id: int
    manifest: _network_pb2.Manifest
    hold_back: bool
    def __init__(self, session_id: _Optional[int] = ..., manifest: _Optional[_Union[_network_pb2.Manifest, _Mapping]] = ..., hold_back: _Optional[bool] = ...) -> None: ...

class DivideFileResponse(_message.Message):
    __slots__ = ("file",)
    FILE_FIELD_NUMBER: _ClassVar[int]
    file: _network_pb2.File
    def __init__(self, file: _Optional[_Union[_network_pb2.File, _Mapping]] = ...) -> None: ...

class ReleaseFileRequest(_message.Message):
    __slots__ = ("file",)
    FILE_FIELD_NUMBER: _ClassVar[int]
    file: str
    def __init__(self, file: _Optional[str] = ...) -> None: ...

class ReleaseFileResponse(_message.Message):
    __slots__ = ("file",)
    FILE_FIELD_NUMBER: _ClassVar[int]
    file: _network_pb2.File
    def __init__(self, file: _Optional[_Union[_network_pb2.File, _Mapping]] = ...) -> None: ...

class RemoveFileRequest(_message.Message):
    __slots__ = ("file", "force")
    FILE_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    file: str
    force: bool
    def __init__(self, file: _Optional[str] = ..., force: _Optional[bool] = ...) -> None: ...

class RemoveFileResponse(_message.Message):
    __slots__ = ("file",)
    FILE_FIELD_NUMBER: _ClassVar[int]
    file: _network_pb2.File
    def __init__(self, file: _Optional[_Union[_network_pb2.File, _Mapping]] = ...) -> None: ...

class ListFilesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListFilesResponse(_message.Message):
    __slots__ = ("files",)
    FILES_FIELD_NUMBER: _ClassVar[int]
    files: _containers.RepeatedCompositeFieldContainer[_network_pb2.File]
    def __init__(self, files: _Optional[_Iterable[_Union[_network_pb2.File, _Mapping]]] = ...) -> None: ...
