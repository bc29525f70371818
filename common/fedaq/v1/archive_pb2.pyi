from fedaq.v1 import federation_pb2 as _federation_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Archive(_message.Message):
    __slots__ = ("single", "tensors", "payload")
    SINGLE_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    single: bool
    tensors: _containers.RepeatedCompositeFieldContainer[ArchivedTensor]
    payload: _federation_pb2.PayloadHeader
    def __init__(self, single: bool = ..., tensors: _Optional[_Iterable[_Union[ArchivedTensor, _Mapping]]] = ..., payload: _Optional[_Union[_federation_pb2.PayloadHeader, _Mapping]] = ...) -> None: ...

class ArchivedTensor(_message.Message):
    __slots__ = ("name", "shape", "dtype", "torch", "exact")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    TORCH_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    dtype: str
    torch: bool
    exact: bool
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., dtype: _Optional[str] = ..., torch: bool = ..., exact: bool = ...) -> None: ...
