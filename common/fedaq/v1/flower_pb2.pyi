from fedaq.v1 import federation_pb2 as _federation_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FlowerLayout(_message.Message):
    __slots__ = ("arrays",)
    ARRAYS_FIELD_NUMBER: _ClassVar[int]
    arrays: _containers.RepeatedCompositeFieldContainer[FlowerArray]
    def __init__(self, arrays: _Optional[_Iterable[_Union[FlowerArray, _Mapping]]] = ...) -> None: ...

class FlowerArray(_message.Message):
    __slots__ = ("name", "shape", "dtype", "exact")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    dtype: str
    exact: bool
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., dtype: _Optional[str] = ..., exact: bool = ...) -> None: ...

class FlowerPayload(_message.Message):
    __slots__ = ("header", "chunks", "exact", "dtypes", "layout")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    DTYPES_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    header: _federation_pb2.PayloadHeader
    chunks: _containers.RepeatedCompositeFieldContainer[_federation_pb2.Chunk]
    exact: bytes
    dtypes: _containers.RepeatedScalarFieldContainer[str]
    layout: FlowerLayout
    def __init__(self, header: _Optional[_Union[_federation_pb2.PayloadHeader, _Mapping]] = ..., chunks: _Optional[_Iterable[_Union[_federation_pb2.Chunk, _Mapping]]] = ..., exact: _Optional[bytes] = ..., dtypes: _Optional[_Iterable[str]] = ..., layout: _Optional[_Union[FlowerLayout, _Mapping]] = ...) -> None: ...

class FlowerDown(_message.Message):
    __slots__ = ("record", "holds", "payloads", "grant")
    RECORD_FIELD_NUMBER: _ClassVar[int]
    HOLDS_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    record: str
    holds: bytes
    payloads: _containers.RepeatedCompositeFieldContainer[FlowerPayload]
    grant: FlowerGrant
    def __init__(self, record: _Optional[str] = ..., holds: _Optional[bytes] = ..., payloads: _Optional[_Iterable[_Union[FlowerPayload, _Mapping]]] = ..., grant: _Optional[_Union[FlowerGrant, _Mapping]] = ...) -> None: ...

class FlowerGrant(_message.Message):
    __slots__ = ("round", "step", "unsent", "limit_bytes")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    UNSENT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    round: int
    step: float
    unsent: _containers.RepeatedScalarFieldContainer[int]
    limit_bytes: int
    def __init__(self, round: _Optional[int] = ..., step: _Optional[float] = ..., unsent: _Optional[_Iterable[int]] = ..., limit_bytes: _Optional[int] = ...) -> None: ...

class FlowerUp(_message.Message):
    __slots__ = ("record", "holds", "payload", "spreads")
    RECORD_FIELD_NUMBER: _ClassVar[int]
    HOLDS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    SPREADS_FIELD_NUMBER: _ClassVar[int]
    record: str
    holds: bytes
    payload: FlowerPayload
    spreads: bytes
    def __init__(self, record: _Optional[str] = ..., holds: _Optional[bytes] = ..., payload: _Optional[_Union[FlowerPayload, _Mapping]] = ..., spreads: _Optional[bytes] = ...) -> None: ...
