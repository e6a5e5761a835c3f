from pspd.v1 import network_pb2 as _network_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MemberRole(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MEMBER_ROLE_UNSPECIFIED: _ClassVar[MemberRole]
    MEMBER_ROLE_CLIENT: _ClassVar[MemberRole]
    MEMBER_ROLE_SOURCE: _ClassVar[MemberRole]

class SessionEndCause(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SESSION_END_CAUSE_UNSPECIFIED: _ClassVar[SessionEndCause]
    SESSION_END_CAUSE_REPLACED: _ClassVar[SessionEndCause]
    SESSION_END_CAUSE_LEASE_EXPIRED: _ClassVar[SessionEndCause]
    SESSION_END_CAUSE_LEFT: _ClassVar[SessionEndCause]
    SESSION_END_CAUSE_CONNECTION_ENDED: _ClassVar[SessionEndCause]
    SESSION_END_CAUSE_SOURCE_DONE: _ClassVar[SessionEndCause]
    SESSION_END_CAUSE_PROTOCOL_ERROR: _ClassVar[SessionEndCause]
    SESSION_END_CAUSE_SERVER_FAULT: _ClassVar[SessionEndCause]

class FileMilestone(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FILE_MILESTONE_UNSPECIFIED: _ClassVar[FileMilestone]
    FILE_MILESTONE_SHARE_HELD: _ClassVar[FileMilestone]
    FILE_MILESTONE_COMPLETE: _ClassVar[FileMilestone]
    FILE_MILESTONE_DECLINED: _ClassVar[FileMilestone]
MEMBER_ROLE_UNSPECIFIED: MemberRole
MEMBER_ROLE_CLIENT: MemberRole
MEMBER_ROLE_SOURCE: MemberRole
SESSION_END_CAUSE_UNSPECIFIED: SessionEndCause
SESSION_END_CAUSE_REPLACED: SessionEndCause
SESSION_END_CAUSE_LEASE_EXPIRED: SessionEndCause
SESSION_END_CAUSE_LEFT: SessionEndCause
SESSION_END_CAUSE_CONNECTION_ENDED: SessionEndCause
SESSION_END_CAUSE_SOURCE_DONE: SessionEndCause
SESSION_END_CAUSE_PROTOCOL_ERROR: SessionEndCause
SESSION_END_CAUSE_SERVER_FAULT: SessionEndCause
FILE_MILESTONE_UNSPECIFIED: FileMilestone
FILE_MILESTONE_SHARE_HELD: FileMilestone
FILE_MILESTONE_COMPLETE: FileMilestone
FILE_MILESTONE_DECLINED: FileMilestone

class GetParametersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetParametersResponse(_message.Message):
    __slots__ = ("parameters",)
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    parameters: _network_pb2.Parameters
    def __init__(self, parameters: _Optional[_Union[_network_pb2.Parameters, _Mapping]] = ...) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("name", "role", "instance_id", "delivery_port", "holdings")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_PORT_FIELD_NUMBER: _ClassVar[int]
    HOLDINGS_FIELD_NUMBER: _ClassVar[int]
    name: str
    role: MemberRole
    instance_id: bytes
    delivery_port: int
    holdings: _containers.RepeatedCompositeFieldContainer[_network_pb2.Holding]
    def __init__(self, name: _Optional[str] = ..., role: _Optional[_Union[MemberRole, str]] = ..., instance_id: _Optional[bytes] = ..., delivery_port: _Optional[int] = ..., holdings: _Optional[_Iterable[_Union[_network_pb2.Holding, _Mapping]]] = ...) -> None: ...

class JoinResponse(_message.Message):
    __slots__ = ("session_id", "data_port", "lease_ms", "parameters")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_PORT_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    session_id: int
    data_port: int
    lease_ms: int
    parameters: _network_pb2.Parameters
    def __init__(self, session_id: _Optional[int] = ..., data_port: _Optional[int] = ..., lease_ms: _Optional[int] = ..., parameters: _Optional[_Union[_network_pb2.Parameters, _Mapping]] = ...) -> None: ...

class AttendRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: int
    def __init__(self, session_id: _Optional[int] = ...) -> None: ...

class AttendResponse(_message.Message):
    __slots__ = ("file_assigned", "exchange_started", "stop_asked", "session_ended", "file_suspected", "file_removed")
    FILE_ASSIGNED_FIELD_NUMBER: _ClassVar[int]
    EXCHANGE_STARTED_FIELD_NUMBER: _ClassVar[int]
    STOP_ASKED_FIELD_NUMBER: _ClassVar[int]
    SESSION_ENDED_FIELD_NUMBER: _ClassVar[int]
    FILE_SUSPECTED_FIELD_NUMBER: _ClassVar[int]
    FILE_REMOVED_FIELD_NUMBER: _ClassVar[int]
    file_assigned: FileAssigned
    exchange_started: ExchangeStarted
    stop_asked: StopAsked
    session_ended: SessionEnded
    file_suspected: FileSuspected
    file_removed: FileRemoved
    def __init__(self, file_assigned: _Optional[_Union[FileAssigned, _Mapping]] = ..., exchange_started: _Optional[_Union[ExchangeStarted, _Mapping]] = ..., stop_asked: _Optional[_Union[StopAsked, _Mapping]] = ..., session_ended: _Optional[_Union[SessionEnded, _Mapping]] = ..., file_suspected: _Optional[_Union[FileSuspected, _Mapping]] = ..., file_removed: _Optional[_Union[FileRemoved, _Mapping]] = ...) -> None: ...

class FileAssigned(_message.Message):
    __slots__ = ("manifest", "shares", "exchange_started", "division")
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    EXCHANGE_STARTED_FIELD_NUMBER: _ClassVar[int]
    DIVISION_FIELD_NUMBER: _ClassVar[int]
    manifest: _network_pb2.Manifest
    shares: _containers.RepeatedCompositeFieldContainer[_network_pb2.ChunkRange]
    exchange_started: bool
    division: int
    def __init__(self, manifest: _Optional[_Union[_network_pb2.Manifest, _Mapping]] = ..., shares: _Optional[_Iterable[_Union[_network_pb2.ChunkRange, _Mapping]]] = ..., exchange_started: _Optional[bool] = ..., division: _Optional[int] = ...) -> None: ...

class ExchangeStarted(_message.Message):
    __slots__ = ("file_id",)
    FILE_ID_FIELD_NUMBER: _ClassVar[int]
    file_id: bytes
    def __init__(self, file_id: _Optional[bytes] = ...) -> None: ...

class StopAsked(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FileSuspected(_message.Message):
    __slots__ = ("file_id",)
    FILE_ID_FIELD_NUMBER: _ClassVar[int]
    file_id: bytes
    def __init__(self, file_id: _Optional[bytes] = ...) -> None: ...

class FileRemoved(_message.Message):
    __slots__ = ("file_id",)
    FILE_ID_FIELD_NUMBER: _ClassVar[int]
    file_id: bytes
    def __init__(self, file_id: _Optional[bytes] = ...) -> None: ...

class SessionEnded(_message.Message):
    __slots__ = ("reason", "cause")
    REASON_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    reason: str
    cause: SessionEndCause
    def __init__(self, reason: _Optional[str] = ..., cause: _Optional[_Union[SessionEndCause, str]] = ...) -> None: ...

class RenewLeaseRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: int
    def __init__(self, session_id: _Optional[int] = ...) -> None: ...

class RenewLeaseResponse(_message.Message):
    __slots__ = ("lease_ms",)
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    lease_ms: int
    def __init__(self, lease_ms: _Optional[int] = ...) -> None: ...

class FileReport(_message.Message):
    __slots__ = ("file_id", "milestone", "share_chunk_count", "reason", "division", "request_number", "still_holds")
    FILE_ID_FIELD_NUMBER: _ClassVar[int]
    MILESTONE_FIELD_NUMBER: _ClassVar[int]
    SHARE_CHUNK_COUNT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DIVISION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_NUMBER_FIELD_NUMBER: _ClassVar[int]
    STILL_HOLDS_FIELD_NUMBER: _ClassVar[int]
    file_id: bytes
    milestone: FileMilestone
    share_chunk_count: int
    reason: str
    division: int
    request_number: int
    still_holds: bool
    def __init__(self, file_id: _Optional[bytes] = ..., milestone: _Optional[_Union[FileMilestone, str]] = ..., share_chunk_count: _Optional[int] = ..., reason: _Optional[str] = ..., division: _Optional[int] = ..., request_number: _Optional[int] = ..., still_holds: _Optional[bool] = ...) -> None: ...

class ReportFilesRequest(_message.Message):
    __slots__ = ("session_id", "reports")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    session_id: int
    reports: _containers.RepeatedCompositeFieldContainer[FileReport]
    def __init__(self, session_id: _Optional[int] = ..., reports: _Optional[_Iterable[_Union[FileReport, _Mapping]]] = ...) -> None: ...

class ReportFilesResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LeaveRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: int
    def __init__(self, session_id: _Optional[int] = ...) -> None: ...

class LeaveResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
