from pspd.v1 import network_pb2 as _network_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListClientsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListClientsResponse(_message.Message):
    __slots__ = ("clients",)
    CLIENTS_FIELD_NUMBER: _ClassVar[int]
    clients: _containers.RepeatedCompositeFieldContainer[_network_pb2.Client]
    def __init__(self, clients: _Optional[_Iterable[_Union[_network_pb2.Client, _Mapping]]] = ...) -> None: ...

class LaunchClientsRequest(_message.Message):
    __slots__ = ("count", "dir")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    DIR_FIELD_NUMBER: _ClassVar[int]
    count: int
    dir: str
    def __init__(self, count: _Optional[int] = ..., dir: _Optional[str] = ...) -> None: ...

class LaunchClientsResponse(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class AgentServiceLaunchClientsRequest(_message.Message):
    __slots__ = ("count", "dir", "server")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    DIR_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    count: int
    dir: str
    server: str
    def __init__(self, count: _Optional[int] = ..., dir: _Optional[str] = ..., server: _Optional[str] = ...) -> None: ...

class AgentServiceLaunchClientsResponse(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class StopClientsRequest(_message.Message):
    __slots__ = ("names", "all_clients", "force")
    NAMES_FIELD_NUMBER: _ClassVar[int]
    ALL_CLIENTS_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    all_clients: bool
    force: bool
    def __init__(self, names: _Optional[_Iterable[str]] = ..., all_clients: _Optional[bool] = ..., force: _Optional[bool] = ...) -> None: ...

class StopClientsResponse(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...
