from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TensorKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TENSOR_KIND_CODED: _ClassVar[TensorKind]
    TENSOR_KIND_SERVER: _ClassVar[TensorKind]
    TENSOR_KIND_STATISTICS: _ClassVar[TensorKind]
    TENSOR_KIND_MEAN: _ClassVar[TensorKind]
    TENSOR_KIND_VARIANCE: _ClassVar[TensorKind]

class DataType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DATA_TYPE_UNSPECIFIED: _ClassVar[DataType]
    DATA_TYPE_FLOAT32: _ClassVar[DataType]

class Optimizer(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OPTIMIZER_SGD: _ClassVar[Optimizer]
    OPTIMIZER_ADAMW: _ClassVar[Optimizer]

class Schedule(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCHEDULE_CONSTANT: _ClassVar[Schedule]
    SCHEDULE_COSINE: _ClassVar[Schedule]
    SCHEDULE_STEP: _ClassVar[Schedule]

class Codec(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CODEC_UNSPECIFIED: _ClassVar[Codec]
    CODEC_RAW: _ClassVar[Codec]
    CODEC_UNIFORM: _ClassVar[Codec]
    CODEC_STEP: _ClassVar[Codec]
    CODEC_ZERO: _ClassVar[Codec]

class RefusalReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REFUSAL_REASON_UNSPECIFIED: _ClassVar[RefusalReason]
    REFUSAL_REASON_STALE_ROUND: _ClassVar[RefusalReason]
    REFUSAL_REASON_OUT_OF_ORDER: _ClassVar[RefusalReason]
    REFUSAL_REASON_WRONG_SHAPE: _ClassVar[RefusalReason]
    REFUSAL_REASON_NOT_FINITE: _ClassVar[RefusalReason]
    REFUSAL_REASON_WRONG_SIZE: _ClassVar[RefusalReason]
    REFUSAL_REASON_BITS_NOT_GRANTED: _ClassVar[RefusalReason]
    REFUSAL_REASON_DEADLINE: _ClassVar[RefusalReason]
    REFUSAL_REASON_OUT_OF_RANGE: _ClassVar[RefusalReason]
    REFUSAL_REASON_BROKEN_CODE: _ClassVar[RefusalReason]
    REFUSAL_REASON_OTHER_MODEL: _ClassVar[RefusalReason]
    REFUSAL_REASON_NORM: _ClassVar[RefusalReason]
    REFUSAL_REASON_KEYS: _ClassVar[RefusalReason]
    REFUSAL_REASON_TOO_FEW: _ClassVar[RefusalReason]

class DeclineReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DECLINE_REASON_UNSPECIFIED: _ClassVar[DeclineReason]
    DECLINE_REASON_BATTERY: _ClassVar[DeclineReason]
    DECLINE_REASON_METERED: _ClassVar[DeclineReason]
    DECLINE_REASON_BUSY: _ClassVar[DeclineReason]
    DECLINE_REASON_OTHER: _ClassVar[DeclineReason]
    DECLINE_REASON_EMPTY: _ClassVar[DeclineReason]
TENSOR_KIND_CODED: TensorKind
TENSOR_KIND_SERVER: TensorKind
TENSOR_KIND_STATISTICS: TensorKind
TENSOR_KIND_MEAN: TensorKind
TENSOR_KIND_VARIANCE: TensorKind
DATA_TYPE_UNSPECIFIED: DataType
DATA_TYPE_FLOAT32: DataType
OPTIMIZER_SGD: Optimizer
OPTIMIZER_ADAMW: Optimizer
SCHEDULE_CONSTANT: Schedule
SCHEDULE_COSINE: Schedule
SCHEDULE_STEP: Schedule
CODEC_UNSPECIFIED: Codec
CODEC_RAW: Codec
CODEC_UNIFORM: Codec
CODEC_STEP: Codec
CODEC_ZERO: Codec
REFUSAL_REASON_UNSPECIFIED: RefusalReason
REFUSAL_REASON_STALE_ROUND: RefusalReason
REFUSAL_REASON_OUT_OF_ORDER: RefusalReason
REFUSAL_REASON_WRONG_SHAPE: RefusalReason
REFUSAL_REASON_NOT_FINITE: RefusalReason
REFUSAL_REASON_WRONG_SIZE: RefusalReason
REFUSAL_REASON_BITS_NOT_GRANTED: RefusalReason
REFUSAL_REASON_DEADLINE: RefusalReason
REFUSAL_REASON_OUT_OF_RANGE: RefusalReason
REFUSAL_REASON_BROKEN_CODE: RefusalReason
REFUSAL_REASON_OTHER_MODEL: RefusalReason
REFUSAL_REASON_NORM: RefusalReason
REFUSAL_REASON_KEYS: RefusalReason
REFUSAL_REASON_TOO_FEW: RefusalReason
DECLINE_REASON_UNSPECIFIED: DeclineReason
DECLINE_REASON_BATTERY: DeclineReason
DECLINE_REASON_METERED: DeclineReason
DECLINE_REASON_BUSY: DeclineReason
DECLINE_REASON_OTHER: DeclineReason
DECLINE_REASON_EMPTY: DeclineReason

class DescribeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Description(_message.Message):
    __slots__ = ("protocol_version", "software", "task", "model", "unix_time_s", "round", "rounds", "clients")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    UNIX_TIME_S_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    CLIENTS_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    software: str
    task: str
    model: ModelSignature
    unix_time_s: float
    round: int
    rounds: int
    clients: int
    def __init__(self, protocol_version: _Optional[int] = ..., software: _Optional[str] = ..., task: _Optional[str] = ..., model: _Optional[_Union[ModelSignature, _Mapping]] = ..., unix_time_s: _Optional[float] = ..., round: _Optional[int] = ..., rounds: _Optional[int] = ..., clients: _Optional[int] = ...) -> None: ...

class ClientMessage(_message.Message):
    __slots__ = ("join", "range_report", "update", "chunk", "heartbeat", "leave", "readiness", "mask_shares", "share_check", "unmasking")
    JOIN_FIELD_NUMBER: _ClassVar[int]
    RANGE_REPORT_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    LEAVE_FIELD_NUMBER: _ClassVar[int]
    READINESS_FIELD_NUMBER: _ClassVar[int]
    MASK_SHARES_FIELD_NUMBER: _ClassVar[int]
    SHARE_CHECK_FIELD_NUMBER: _ClassVar[int]
    UNMASKING_FIELD_NUMBER: _ClassVar[int]
    join: Join
    range_report: RangeReport
    update: PayloadHeader
    chunk: Chunk
    heartbeat: Heartbeat
    leave: Leave
    readiness: Readiness
    mask_shares: MaskShares
    share_check: ShareCheck
    unmasking: Unmasking
    def __init__(self, join: _Optional[_Union[Join, _Mapping]] = ..., range_report: _Optional[_Union[RangeReport, _Mapping]] = ..., update: _Optional[_Union[PayloadHeader, _Mapping]] = ..., chunk: _Optional[_Union[Chunk, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., leave: _Optional[_Union[Leave, _Mapping]] = ..., readiness: _Optional[_Union[Readiness, _Mapping]] = ..., mask_shares: _Optional[_Union[MaskShares, _Mapping]] = ..., share_check: _Optional[_Union[ShareCheck, _Mapping]] = ..., unmasking: _Optional[_Union[Unmasking, _Mapping]] = ...) -> None: ...

class ServerMessage(_message.Message):
    __slots__ = ("welcome", "plan", "model", "chunk", "grant", "receipt", "refusal", "finish", "mask_roster", "mask_shares", "mask_set", "unmask")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    FINISH_FIELD_NUMBER: _ClassVar[int]
    MASK_ROSTER_FIELD_NUMBER: _ClassVar[int]
    MASK_SHARES_FIELD_NUMBER: _ClassVar[int]
    MASK_SET_FIELD_NUMBER: _ClassVar[int]
    UNMASK_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    plan: RoundPlan
    model: PayloadHeader
    chunk: Chunk
    grant: UplinkGrant
    receipt: Receipt
    refusal: Refusal
    finish: Finish
    mask_roster: MaskRoster
    mask_shares: MaskShares
    mask_set: MaskSet
    unmask: UnmaskRequest
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., plan: _Optional[_Union[RoundPlan, _Mapping]] = ..., model: _Optional[_Union[PayloadHeader, _Mapping]] = ..., chunk: _Optional[_Union[Chunk, _Mapping]] = ..., grant: _Optional[_Union[UplinkGrant, _Mapping]] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ..., finish: _Optional[_Union[Finish, _Mapping]] = ..., mask_roster: _Optional[_Union[MaskRoster, _Mapping]] = ..., mask_shares: _Optional[_Union[MaskShares, _Mapping]] = ..., mask_set: _Optional[_Union[MaskSet, _Mapping]] = ..., unmask: _Optional[_Union[UnmaskRequest, _Mapping]] = ...) -> None: ...

class Join(_message.Message):
    __slots__ = ("protocol_version", "client", "examples", "model", "radio", "software", "holds", "process", "training", "readiness", "budget", "tariff", "masks", "relayed")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RADIO_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    HOLDS_FIELD_NUMBER: _ClassVar[int]
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    TRAINING_FIELD_NUMBER: _ClassVar[int]
    READINESS_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    TARIFF_FIELD_NUMBER: _ClassVar[int]
    MASKS_FIELD_NUMBER: _ClassVar[int]
    RELAYED_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    client: str
    examples: int
    model: ModelSignature
    radio: Radio
    software: str
    holds: bytes
    process: bytes
    training: int
    readiness: Readiness
    budget: DeviceBudget
    tariff: float
    masks: bool
    relayed: Relayed
    def __init__(self, protocol_version: _Optional[int] = ..., client: _Optional[str] = ..., examples: _Optional[int] = ..., model: _Optional[_Union[ModelSignature, _Mapping]] = ..., radio: _Optional[_Union[Radio, _Mapping]] = ..., software: _Optional[str] = ..., holds: _Optional[bytes] = ..., process: _Optional[bytes] = ..., training: _Optional[int] = ..., readiness: _Optional[_Union[Readiness, _Mapping]] = ..., budget: _Optional[_Union[DeviceBudget, _Mapping]] = ..., tariff: _Optional[float] = ..., masks: bool = ..., relayed: _Optional[_Union[Relayed, _Mapping]] = ...) -> None: ...

class DeviceBudget(_message.Message):
    __slots__ = ("joules", "bytes", "money", "currency")
    JOULES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    MONEY_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    joules: float
    bytes: int
    money: float
    currency: str
    def __init__(self, joules: _Optional[float] = ..., bytes: _Optional[int] = ..., money: _Optional[float] = ..., currency: _Optional[str] = ...) -> None: ...

class ModelSignature(_message.Message):
    __slots__ = ("tensors", "classes", "frozen")
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    FROZEN_FIELD_NUMBER: _ClassVar[int]
    tensors: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    classes: _containers.RepeatedScalarFieldContainer[str]
    frozen: bytes
    def __init__(self, tensors: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., classes: _Optional[_Iterable[str]] = ..., frozen: _Optional[bytes] = ...) -> None: ...

class TensorSpec(_message.Message):
    __slots__ = ("name", "shape", "dtype", "kind", "members")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    dtype: DataType
    kind: TensorKind
    members: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., dtype: _Optional[_Union[DataType, str]] = ..., kind: _Optional[_Union[TensorKind, str]] = ..., members: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ...) -> None: ...

class Radio(_message.Message):
    __slots__ = ("uplink_j_per_bit", "downlink_j_per_bit", "receive_j_per_bit", "name")
    UPLINK_J_PER_BIT_FIELD_NUMBER: _ClassVar[int]
    DOWNLINK_J_PER_BIT_FIELD_NUMBER: _ClassVar[int]
    RECEIVE_J_PER_BIT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    uplink_j_per_bit: float
    downlink_j_per_bit: float
    receive_j_per_bit: float
    name: str
    def __init__(self, uplink_j_per_bit: _Optional[float] = ..., downlink_j_per_bit: _Optional[float] = ..., receive_j_per_bit: _Optional[float] = ..., name: _Optional[str] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("protocol_version", "run_id", "seed", "training", "heartbeat_interval_s", "relays", "return_window_s")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    TRAINING_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_S_FIELD_NUMBER: _ClassVar[int]
    RELAYS_FIELD_NUMBER: _ClassVar[int]
    RETURN_WINDOW_S_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    run_id: str
    seed: int
    training: Training
    heartbeat_interval_s: float
    relays: bool
    return_window_s: float
    def __init__(self, protocol_version: _Optional[int] = ..., run_id: _Optional[str] = ..., seed: _Optional[int] = ..., training: _Optional[_Union[Training, _Mapping]] = ..., heartbeat_interval_s: _Optional[float] = ..., relays: bool = ..., return_window_s: _Optional[float] = ...) -> None: ...

class Training(_message.Message):
    __slots__ = ("local_epochs", "batch_size", "learning_rate", "momentum", "optimizer", "weight_decay", "schedule", "warmup_rounds", "step_rounds", "step_factor", "proximal", "clip_norm", "mixed_precision", "keep_optimizer")
    LOCAL_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    MOMENTUM_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DECAY_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    WARMUP_ROUNDS_FIELD_NUMBER: _ClassVar[int]
    STEP_ROUNDS_FIELD_NUMBER: _ClassVar[int]
    STEP_FACTOR_FIELD_NUMBER: _ClassVar[int]
    PROXIMAL_FIELD_NUMBER: _ClassVar[int]
    CLIP_NORM_FIELD_NUMBER: _ClassVar[int]
    MIXED_PRECISION_FIELD_NUMBER: _ClassVar[int]
    KEEP_OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    local_epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    optimizer: Optimizer
    weight_decay: float
    schedule: Schedule
    warmup_rounds: int
    step_rounds: int
    step_factor: float
    proximal: float
    clip_norm: float
    mixed_precision: bool
    keep_optimizer: bool
    def __init__(self, local_epochs: _Optional[int] = ..., batch_size: _Optional[int] = ..., learning_rate: _Optional[float] = ..., momentum: _Optional[float] = ..., optimizer: _Optional[_Union[Optimizer, str]] = ..., weight_decay: _Optional[float] = ..., schedule: _Optional[_Union[Schedule, str]] = ..., warmup_rounds: _Optional[int] = ..., step_rounds: _Optional[int] = ..., step_factor: _Optional[float] = ..., proximal: _Optional[float] = ..., clip_norm: _Optional[float] = ..., mixed_precision: bool = ..., keep_optimizer: bool = ...) -> None: ...

class RoundPlan(_message.Message):
    __slots__ = ("round", "rounds", "deadline_s", "downlink_bits", "uplink_bits", "price", "clip", "payloads", "entropy", "prove", "chunk_bytes", "measure", "keep", "ternary", "clipping", "masking", "one_in", "weight", "relay_j")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    DOWNLINK_BITS_FIELD_NUMBER: _ClassVar[int]
    UPLINK_BITS_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    CLIP_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    ENTROPY_FIELD_NUMBER: _ClassVar[int]
    PROVE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEASURE_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    TERNARY_FIELD_NUMBER: _ClassVar[int]
    CLIPPING_FIELD_NUMBER: _ClassVar[int]
    MASKING_FIELD_NUMBER: _ClassVar[int]
    ONE_IN_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    RELAY_J_FIELD_NUMBER: _ClassVar[int]
    round: int
    rounds: int
    deadline_s: float
    downlink_bits: _containers.RepeatedScalarFieldContainer[int]
    uplink_bits: _containers.RepeatedScalarFieldContainer[int]
    price: float
    clip: bool
    payloads: int
    entropy: bool
    prove: bool
    chunk_bytes: int
    measure: bool
    keep: float
    ternary: bool
    clipping: Clipping
    masking: Masking
    one_in: int
    weight: float
    relay_j: float
    def __init__(self, round: _Optional[int] = ..., rounds: _Optional[int] = ..., deadline_s: _Optional[float] = ..., downlink_bits: _Optional[_Iterable[int]] = ..., uplink_bits: _Optional[_Iterable[int]] = ..., price: _Optional[float] = ..., clip: bool = ..., payloads: _Optional[int] = ..., entropy: bool = ..., prove: bool = ..., chunk_bytes: _Optional[int] = ..., measure: bool = ..., keep: _Optional[float] = ..., ternary: bool = ..., clipping: _Optional[_Union[Clipping, _Mapping]] = ..., masking: _Optional[_Union[Masking, _Mapping]] = ..., one_in: _Optional[int] = ..., weight: _Optional[float] = ..., relay_j: _Optional[float] = ...) -> None: ...

class Clipping(_message.Message):
    __slots__ = ("norm", "rounded", "count")
    NORM_FIELD_NUMBER: _ClassVar[int]
    ROUNDED_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    norm: float
    rounded: float
    count: bool
    def __init__(self, norm: _Optional[float] = ..., rounded: _Optional[float] = ..., count: bool = ...) -> None: ...

class Masking(_message.Message):
    __slots__ = ("steps", "reaches", "widths", "weight")
    STEPS_FIELD_NUMBER: _ClassVar[int]
    REACHES_FIELD_NUMBER: _ClassVar[int]
    WIDTHS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    steps: _containers.RepeatedScalarFieldContainer[float]
    reaches: _containers.RepeatedScalarFieldContainer[float]
    widths: _containers.RepeatedScalarFieldContainer[int]
    weight: int
    def __init__(self, steps: _Optional[_Iterable[float]] = ..., reaches: _Optional[_Iterable[float]] = ..., widths: _Optional[_Iterable[int]] = ..., weight: _Optional[int] = ...) -> None: ...

class TensorHeader(_message.Message):
    __slots__ = ("codec", "bits", "lo", "hi", "step", "zero")
    CODEC_FIELD_NUMBER: _ClassVar[int]
    BITS_FIELD_NUMBER: _ClassVar[int]
    LO_FIELD_NUMBER: _ClassVar[int]
    HI_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    ZERO_FIELD_NUMBER: _ClassVar[int]
    codec: Codec
    bits: int
    lo: float
    hi: float
    step: float
    zero: int
    def __init__(self, codec: _Optional[_Union[Codec, str]] = ..., bits: _Optional[int] = ..., lo: _Optional[float] = ..., hi: _Optional[float] = ..., step: _Optional[float] = ..., zero: _Optional[int] = ...) -> None: ...

class PayloadHeader(_message.Message):
    __slots__ = ("round", "code_bytes", "tensors", "base")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    CODE_BYTES_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    round: int
    code_bytes: int
    tensors: _containers.RepeatedCompositeFieldContainer[TensorHeader]
    base: bytes
    def __init__(self, round: _Optional[int] = ..., code_bytes: _Optional[int] = ..., tensors: _Optional[_Iterable[_Union[TensorHeader, _Mapping]]] = ..., base: _Optional[bytes] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("round", "offset", "data", "code_bytes", "coded_bytes", "past")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CODE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CODED_BYTES_FIELD_NUMBER: _ClassVar[int]
    PAST_FIELD_NUMBER: _ClassVar[int]
    round: int
    offset: int
    data: bytes
    code_bytes: int
    coded_bytes: _containers.RepeatedScalarFieldContainer[int]
    past: bytes
    def __init__(self, round: _Optional[int] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ..., code_bytes: _Optional[int] = ..., coded_bytes: _Optional[_Iterable[int]] = ..., past: _Optional[bytes] = ...) -> None: ...

class TensorRange(_message.Message):
    __slots__ = ("lo", "hi", "mean", "deviation", "magnitude")
    LO_FIELD_NUMBER: _ClassVar[int]
    HI_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    DEVIATION_FIELD_NUMBER: _ClassVar[int]
    MAGNITUDE_FIELD_NUMBER: _ClassVar[int]
    lo: float
    hi: float
    mean: float
    deviation: float
    magnitude: float
    def __init__(self, lo: _Optional[float] = ..., hi: _Optional[float] = ..., mean: _Optional[float] = ..., deviation: _Optional[float] = ..., magnitude: _Optional[float] = ...) -> None: ...

class RangeReport(_message.Message):
    __slots__ = ("round", "ranges", "train_loss", "holds", "validation", "training_s", "training_j", "keys", "within_clip", "relayed")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    TRAIN_LOSS_FIELD_NUMBER: _ClassVar[int]
    HOLDS_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_FIELD_NUMBER: _ClassVar[int]
    TRAINING_S_FIELD_NUMBER: _ClassVar[int]
    TRAINING_J_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    WITHIN_CLIP_FIELD_NUMBER: _ClassVar[int]
    RELAYED_FIELD_NUMBER: _ClassVar[int]
    round: int
    ranges: _containers.RepeatedCompositeFieldContainer[TensorRange]
    train_loss: float
    holds: bytes
    validation: Validation
    training_s: float
    training_j: float
    keys: MaskKeys
    within_clip: bool
    relayed: Relayed
    def __init__(self, round: _Optional[int] = ..., ranges: _Optional[_Iterable[_Union[TensorRange, _Mapping]]] = ..., train_loss: _Optional[float] = ..., holds: _Optional[bytes] = ..., validation: _Optional[_Union[Validation, _Mapping]] = ..., training_s: _Optional[float] = ..., training_j: _Optional[float] = ..., keys: _Optional[_Union[MaskKeys, _Mapping]] = ..., within_clip: bool = ..., relayed: _Optional[_Union[Relayed, _Mapping]] = ...) -> None: ...

class Relayed(_message.Message):
    __slots__ = ("clients", "examples", "energy_j", "most_price")
    CLIENTS_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    ENERGY_J_FIELD_NUMBER: _ClassVar[int]
    MOST_PRICE_FIELD_NUMBER: _ClassVar[int]
    clients: int
    examples: int
    energy_j: float
    most_price: float
    def __init__(self, clients: _Optional[int] = ..., examples: _Optional[int] = ..., energy_j: _Optional[float] = ..., most_price: _Optional[float] = ...) -> None: ...

class Validation(_message.Message):
    __slots__ = ("examples", "metrics")
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    examples: int
    metrics: _containers.RepeatedCompositeFieldContainer[Metric]
    def __init__(self, examples: _Optional[int] = ..., metrics: _Optional[_Iterable[_Union[Metric, _Mapping]]] = ...) -> None: ...

class Metric(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...

class UplinkGrant(_message.Message):
    __slots__ = ("round", "uplink_bits", "uplink_steps", "limit_bytes", "uplink_reaches")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    UPLINK_BITS_FIELD_NUMBER: _ClassVar[int]
    UPLINK_STEPS_FIELD_NUMBER: _ClassVar[int]
    LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    UPLINK_REACHES_FIELD_NUMBER: _ClassVar[int]
    round: int
    uplink_bits: _containers.RepeatedScalarFieldContainer[int]
    uplink_steps: _containers.RepeatedScalarFieldContainer[float]
    limit_bytes: int
    uplink_reaches: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, round: _Optional[int] = ..., uplink_bits: _Optional[_Iterable[int]] = ..., uplink_steps: _Optional[_Iterable[float]] = ..., limit_bytes: _Optional[int] = ..., uplink_reaches: _Optional[_Iterable[float]] = ...) -> None: ...

class MaskKeys(_message.Message):
    __slots__ = ("cipher_key", "mask_key", "seed_digest", "certificate", "signature")
    CIPHER_KEY_FIELD_NUMBER: _ClassVar[int]
    MASK_KEY_FIELD_NUMBER: _ClassVar[int]
    SEED_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    cipher_key: bytes
    mask_key: bytes
    seed_digest: bytes
    certificate: bytes
    signature: bytes
    def __init__(self, cipher_key: _Optional[bytes] = ..., mask_key: _Optional[bytes] = ..., seed_digest: _Optional[bytes] = ..., certificate: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class MaskRoster(_message.Message):
    __slots__ = ("round", "number", "threshold", "peers", "noise", "count_noise")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    NOISE_FIELD_NUMBER: _ClassVar[int]
    COUNT_NOISE_FIELD_NUMBER: _ClassVar[int]
    round: int
    number: int
    threshold: int
    peers: _containers.RepeatedCompositeFieldContainer[MaskPeer]
    noise: float
    count_noise: float
    def __init__(self, round: _Optional[int] = ..., number: _Optional[int] = ..., threshold: _Optional[int] = ..., peers: _Optional[_Iterable[_Union[MaskPeer, _Mapping]]] = ..., noise: _Optional[float] = ..., count_noise: _Optional[float] = ...) -> None: ...

class MaskPeer(_message.Message):
    __slots__ = ("number", "name", "keys")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    number: int
    name: str
    keys: MaskKeys
    def __init__(self, number: _Optional[int] = ..., name: _Optional[str] = ..., keys: _Optional[_Union[MaskKeys, _Mapping]] = ...) -> None: ...

class MaskShares(_message.Message):
    __slots__ = ("round", "shares")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    round: int
    shares: _containers.RepeatedCompositeFieldContainer[SealedShare]
    def __init__(self, round: _Optional[int] = ..., shares: _Optional[_Iterable[_Union[SealedShare, _Mapping]]] = ...) -> None: ...

class SealedShare(_message.Message):
    __slots__ = ("peer", "sealed")
    PEER_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    peer: int
    sealed: bytes
    def __init__(self, peer: _Optional[int] = ..., sealed: _Optional[bytes] = ...) -> None: ...

class ShareCheck(_message.Message):
    __slots__ = ("round", "unfit")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    UNFIT_FIELD_NUMBER: _ClassVar[int]
    round: int
    unfit: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, round: _Optional[int] = ..., unfit: _Optional[_Iterable[int]] = ...) -> None: ...

class MaskSet(_message.Message):
    __slots__ = ("round", "members")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    round: int
    members: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, round: _Optional[int] = ..., members: _Optional[_Iterable[int]] = ...) -> None: ...

class UnmaskRequest(_message.Message):
    __slots__ = ("round", "counted", "gone")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    COUNTED_FIELD_NUMBER: _ClassVar[int]
    GONE_FIELD_NUMBER: _ClassVar[int]
    round: int
    counted: _containers.RepeatedScalarFieldContainer[int]
    gone: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, round: _Optional[int] = ..., counted: _Optional[_Iterable[int]] = ..., gone: _Optional[_Iterable[int]] = ...) -> None: ...

class Unmasking(_message.Message):
    __slots__ = ("round", "shares")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    round: int
    shares: _containers.RepeatedCompositeFieldContainer[RevealedShare]
    def __init__(self, round: _Optional[int] = ..., shares: _Optional[_Iterable[_Union[RevealedShare, _Mapping]]] = ...) -> None: ...

class RevealedShare(_message.Message):
    __slots__ = ("peer", "share")
    PEER_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    peer: int
    share: bytes
    def __init__(self, peer: _Optional[int] = ..., share: _Optional[bytes] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("round",)
    ROUND_FIELD_NUMBER: _ClassVar[int]
    round: int
    def __init__(self, round: _Optional[int] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("round", "reason", "message")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    round: int
    reason: RefusalReason
    message: str
    def __init__(self, round: _Optional[int] = ..., reason: _Optional[_Union[RefusalReason, str]] = ..., message: _Optional[str] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Readiness(_message.Message):
    __slots__ = ("declined", "detail", "holds", "relayed")
    DECLINED_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    HOLDS_FIELD_NUMBER: _ClassVar[int]
    RELAYED_FIELD_NUMBER: _ClassVar[int]
    declined: DeclineReason
    detail: str
    holds: bytes
    relayed: Relayed
    def __init__(self, declined: _Optional[_Union[DeclineReason, str]] = ..., detail: _Optional[str] = ..., holds: _Optional[bytes] = ..., relayed: _Optional[_Union[Relayed, _Mapping]] = ...) -> None: ...

class Leave(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class Finish(_message.Message):
    __slots__ = ("reason", "over")
    REASON_FIELD_NUMBER: _ClassVar[int]
    OVER_FIELD_NUMBER: _ClassVar[int]
    reason: str
    over: bool
    def __init__(self, reason: _Optional[str] = ..., over: bool = ...) -> None: ...

class CapturedPayload(_message.Message):
    __slots__ = ("model", "header", "codes", "sender", "chunks", "keys")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CODES_FIELD_NUMBER: _ClassVar[int]
    SENDER_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    model: ModelSignature
    header: PayloadHeader
    codes: bytes
    sender: str
    chunks: _containers.RepeatedCompositeFieldContainer[Chunk]
    keys: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, model: _Optional[_Union[ModelSignature, _Mapping]] = ..., header: _Optional[_Union[PayloadHeader, _Mapping]] = ..., codes: _Optional[bytes] = ..., sender: _Optional[str] = ..., chunks: _Optional[_Iterable[_Union[Chunk, _Mapping]]] = ..., keys: _Optional[_Iterable[int]] = ...) -> None: ...
