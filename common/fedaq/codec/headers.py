"""Headers that came from a peer or a file: every field is checked before it is used."""

from fedaq.codec import quantizer
from fedaq.codec.model import ModelSpec
from fedaq.codec.payload import RAW, ZERO, Payload, TensorCode
from fedaq.codec.quantizer import RAW_BITS, SMALLEST_STEP, Range, Spread
from fedaq.errors import NotFiniteError, ProtocolError
from fedaq.v1 import federation_pb2 as pb

# By how much of a range its reported mean, deviation and magnitude may lie beyond it.
ROUNDING = 1e-3


def from_message(spec: ModelSpec, header: pb.PayloadHeader) -> Payload:
    """Read a header that came from a peer or a file, checking every field.

    Raises
    ------
    ProtocolError
        If it does not describe a payload of this model.
    """
    if len(header.tensors) != len(spec.tensors):
        raise ProtocolError(
            pb.REFUSAL_REASON_WRONG_SHAPE,
            f"the payload has {len(header.tensors)} tensors, the model {len(spec.tensors)}",
        )
    codes = tuple(
        _tensor_code(tensor.name, message)
        for tensor, message in zip(spec.tensors, header.tensors, strict=True)
    )
    payload = Payload(spec, codes)
    if header.code_bytes != payload.code_bytes:
        raise ProtocolError(
            pb.REFUSAL_REASON_WRONG_SIZE,
            f"the payload announces {header.code_bytes} code bytes; "
            f"its shapes and bits need {payload.code_bytes}",
        )
    return payload


def _tensor_code(name: str, message: pb.TensorHeader) -> TensorCode:
    if message.codec == pb.CODEC_RAW and message.bits == RAW_BITS:
        return RAW
    if message.codec == pb.CODEC_ZERO and message.bits == 0:
        return ZERO
    if message.codec not in (pb.CODEC_UNIFORM, pb.CODEC_STEP) or message.bits == RAW_BITS:
        raise ProtocolError(
            pb.REFUSAL_REASON_WRONG_SHAPE,
            f"tensor {name}: codec {message.codec} with {message.bits} bits is unknown",
        )
    if not quantizer.is_width(message.bits):
        raise ProtocolError(
            pb.REFUSAL_REASON_WRONG_SHAPE,
            f"tensor {name}: {message.bits} bits; 1 to 16, or 32 for raw, are possible",
        )
    if message.codec == pb.CODEC_STEP:
        return _checked_step(name, message)
    if not (message.HasField("lo") and message.HasField("hi")):
        raise ProtocolError(pb.REFUSAL_REASON_WRONG_SHAPE, f"tensor {name}: its range is missing")
    return TensorCode(message.bits, reported_range(name, message.lo, message.hi))


def _checked_step(name: str, message: pb.TensorHeader) -> TensorCode:
    if not (SMALLEST_STEP <= message.step < float("inf")):
        raise ProtocolError(
            pb.REFUSAL_REASON_NOT_FINITE, f"tensor {name}: a quantization step of {message.step}"
        )
    if message.zero >= 2**message.bits:
        raise ProtocolError(
            pb.REFUSAL_REASON_WRONG_SHAPE,
            f"tensor {name}: {message.bits} bits have no code {message.zero} to stand for 0",
        )
    code = TensorCode(message.bits, step=message.step, zero=message.zero)
    assert code.grid is not None
    reported_range(name, code.grid.lo, code.grid.hi)
    return code


def spread_message(spread: Spread) -> pb.TensorRange:
    """Return what is known of a tensor's values as it is reported."""
    return pb.TensorRange(
        lo=spread.lo,
        hi=spread.hi,
        mean=spread.mean,
        deviation=spread.deviation,
        magnitude=spread.magnitude,
    )


def reported_spread(name: str, message: pb.TensorRange) -> Spread:
    """Check a range report of one tensor.

    Raises
    ------
    ProtocolError
        If its range is none, or mean and deviation are not finite or cannot be those of values
        in the range.
    """
    bounds = reported_range(name, message.lo, message.hi)
    positive = (message.deviation, message.magnitude)
    if not (
        abs(message.mean) < float("inf") and all(0 <= value < float("inf") for value in positive)
    ):
        raise ProtocolError(
            pb.REFUSAL_REASON_NOT_FINITE,
            f"tensor {name}: its mean, deviation or magnitude is not finite",
        )
    reach = max(-bounds.lo, bounds.hi)
    slack = ROUNDING * reach
    if not (
        bounds.lo - slack <= message.mean <= bounds.hi + slack
        and message.deviation <= bounds.width + slack
        and message.magnitude <= reach + slack
    ):
        raise ProtocolError(
            pb.REFUSAL_REASON_OUT_OF_RANGE,
            f"tensor {name}: its mean, deviation or magnitude is beyond its range",
        )
    return Spread(bounds.lo, bounds.hi, message.mean, message.deviation, message.magnitude)


def reported_range(name: str, lo: float, hi: float) -> Range:
    """Check a range that a peer sent.

    Raises
    ------
    ProtocolError
        If it is not finite, is reversed or is too wide.
    """
    try:
        return quantizer.checked_range(lo, hi)
    except NotFiniteError as error:
        raise ProtocolError(pb.REFUSAL_REASON_NOT_FINITE, f"tensor {name}: {error}") from None
