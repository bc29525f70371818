"""Archives give back what was put into them, as exactly and in as few bytes as was asked."""

import subprocess
import sys
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor, nn

from fedaq.codec import CodecError, decode, encode, estimate, model

Values = dict[str, Any]
MB = 2**20
# Half a step, and the rounding of float32.
NEAREST, AT_RANDOM = 0.52, 1.02
NUMPY = [
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    "bool", "float16", "float32", "float64", "complex64", "complex128",
]  # fmt: skip
TORCH = [*NUMPY, "bfloat16", "float8_e4m3fn", "float8_e5m2"]
# By how much of a value its type rounds it.
ROUNDING = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 0.0, "float64": 2.0**-23}
SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9)


@st.composite
def any_array(draw: st.DrawFn) -> "np.ndarray[Any, Any]":
    """Return an array of any type and shape, NaN and infinities among its values."""
    found = draw(arrays.arrays(draw(st.sampled_from(NUMPY)), draw(SHAPES)))
    return found[::-1] if found.ndim and draw(st.booleans()) else found


@st.composite
def any_tensor(draw: st.DrawFn) -> Tensor:
    """Return a tensor of any type and shape and any bytes."""
    dtype = getattr(torch, draw(st.sampled_from(TORCH)))
    shape = draw(SHAPES)
    size = dtype.itemsize * int(np.prod(shape, dtype=int))
    data = draw(st.binary(min_size=size, max_size=size))
    if dtype == torch.bool:
        data = bytes(byte & 1 for byte in data)
    tensor = torch.empty(shape, dtype=dtype)
    if size:
        tensor = torch.frombuffer(bytearray(data), dtype=dtype).reshape(shape)
    return tensor.t() if tensor.ndim == 2 and draw(st.booleans()) else tensor


FLAT = st.floats(-10, 10, width=32) | st.just(0.0)


@st.composite
def floats(draw: st.DrawFn) -> Any:
    """Return floating-point values within 10 of 0, of numpy or torch."""
    values = draw(arrays.arrays(np.float32, draw(SHAPES), elements=FLAT))
    dtype = draw(st.sampled_from(list(ROUNDING)))
    if dtype == "bfloat16" or draw(st.booleans()):
        return torch.from_numpy(values).to(getattr(torch, dtype))
    return values.astype(dtype)


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are of one kind, type, shape, and the same to the bit."""
    if type(one) is not type(other) or one.dtype != other.dtype or one.shape != other.shape:
        return False
    return bits(one) == bits(other)


def bits(value: Any) -> bytes:
    if isinstance(value, Tensor):
        if not value.numel():
            return b""
        return value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    found: bytes = value.tobytes()
    return found


def in_float64(value: Any) -> "np.ndarray[Any, np.dtype[np.float64]]":
    if isinstance(value, Tensor):
        value = value.double().numpy()
    found: np.ndarray[Any, np.dtype[np.float64]] = np.asarray(value, np.float64)
    return found


def error_of(value: Any, back: Any) -> Any:
    """Return the errors beyond what the type of the values rounds."""
    assert type(value) is type(back)
    assert (value.dtype, value.shape) == (back.dtype, back.shape)
    exact = in_float64(value)
    rounding = ROUNDING[str(value.dtype).removeprefix("torch.")]
    return np.abs(in_float64(back) - exact) - rounding * (np.abs(exact) + 1)


def weights(count: int, seed: int = 1) -> "np.ndarray[Any, np.dtype[np.float32]]":
    return (np.random.default_rng(seed).standard_normal(count) * 0.02).astype(np.float32)


def state_dict() -> dict[str, Tensor]:
    """Return that of a model with weights, statistics and counts."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(72, 10))
    net(torch.randn(4, 3, 5, 5))
    return dict(net.state_dict())


# ---- Without loss ------------------------------------------------------------------


@given(any_array() | any_tensor())
def test_what_is_not_quantized_comes_back_to_the_bit(value: Any) -> None:
    back = decode(encode(value))
    assert same(back, np.ascontiguousarray(value).reshape(value.shape)
                if isinstance(value, np.ndarray) else value)  # fmt: skip


@given(st.dictionaries(st.text(min_size=1), any_array() | any_tensor(), max_size=5))
def test_a_mapping_keeps_names_and_order(values: dict[str, Any]) -> None:
    try:
        archive = encode(values)
    except CodecError:
        assert any("\ud800" <= letter <= "\udfff" for name in values for letter in name)
        return
    back = decode(archive)
    assert type(back) is dict
    assert list(back) == list(values)
    assert all(same(back[name], values[name]) for name in values)


def test_a_state_dict_loads_again() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(72, 10))
    before = state_dict()
    back = decode(encode(before))
    net.load_state_dict(back)
    assert all(same(net.state_dict()[name], value) for name, value in before.items())


def test_weights_without_loss_take_less_than_as_they_are() -> None:
    values = weights(100_000)
    assert len(encode(values)) < 0.86 * values.nbytes
    counts = np.arange(100_000) % 7
    assert len(encode(counts)) < 0.06 * counts.nbytes


def test_parameters_and_views_that_are_not_contiguous_are_taken() -> None:
    parameter = nn.Parameter(torch.arange(12.0).reshape(3, 4))
    assert same(decode(encode(parameter)), parameter.detach())
    conjugate = torch.complex(torch.ones(3), torch.arange(3.0)).conj()
    assert same(decode(encode(conjugate)), conjugate.resolve_conj())
    swapped = np.arange(5, dtype=">f8")
    back = decode(encode(swapped))
    assert (back.dtype, back.tolist()) == (np.dtype("<f8"), swapped.tolist())


# ---- With a step, a grid, a ratio ----------------------------------------------------


@given(floats(), st.floats(1e-3, 3.0), st.none() | st.integers(0, 2**63))
def test_no_error_is_larger_than_the_step_allows(value: Any, step: float, seed: int | None) -> None:
    back = decode(encode(value, step=step, seed=seed))
    allowed = (NEAREST if seed is None else AT_RANDOM) * step
    assert np.all(error_of(value, back) <= allowed)


@given(floats(), st.integers(1, 16), st.none() | st.integers(0, 2**63))
def test_a_grid_spans_the_range_of_each_tensor(value: Any, grid: int, seed: int | None) -> None:
    back = decode(encode({"a": value, "b": value[:0] if value.ndim else value},
                         grid_bits=grid, seed=seed))  # fmt: skip
    exact = in_float64(value)
    step = np.ptp(exact) / (2**grid - 1) if exact.size else 0.0
    # Of the ends, float32 rounds as much as of the step.
    allowed = (NEAREST if seed is None else AT_RANDOM) * step + 2.0**-20
    assert np.all(error_of(value, back["a"]) <= allowed)


def test_codes_of_a_grid_take_no_more_than_its_bits() -> None:
    values = np.random.default_rng(1).random(100_000, np.float32)
    for bits_each in (1, 3, 8, 12):
        most = values.size * bits_each / 8
        assert len(encode(values, grid_bits=bits_each)) < most + 200


def test_a_tensor_too_wide_for_a_step_travels_exactly() -> None:
    wide = np.array([1000.0, 1 / 3, 0.01], np.float32)
    values: Values = {"wide": wide, "narrow": wide[1:]}
    back = decode(encode(values, step=0.001))
    assert same(back["wide"], wide)
    assert not same(back["narrow"], wide[1:])


def test_complex_values_are_quantized_and_others_are_not() -> None:
    values: Values = {
        "complex": torch.randn(500, dtype=torch.complex64),
        "counts": torch.arange(500),
        "mask": torch.arange(500) % 3 == 0,
        "half": torch.randn(500).to(torch.float8_e5m2),
    }
    back = decode(encode(values, step=0.1, seed=1))
    error = torch.view_as_real(back["complex"] - values["complex"]).abs().max()
    assert 0.01 < error < AT_RANDOM * 0.1
    assert all(same(back[name], values[name]) for name in ("counts", "mask", "half"))


def test_no_value_of_a_narrow_type_becomes_infinite() -> None:
    values = np.array([65504, -65504, 1], np.float16)
    back = decode(encode(values, step=1000.0))
    assert back.tolist() == [65504, -65504, 0]


def test_rounding_at_random_is_without_bias() -> None:
    value, step = np.float32(0.3), 1.0
    backs = [decode(encode(np.full(1000, value), step=step, seed=seed)) for seed in range(20)]
    # Of 20,000 fair draws, the mean is five deviations away once in millions.
    assert abs(np.mean(backs) - value) < 5 * np.sqrt(0.3 * 0.7 / 20_000)
    assert np.all(decode(encode(np.full(1000, value), step=step)) == 0)


def test_errors_have_the_variances_that_the_reference_states() -> None:
    values, step = weights(200_000), 0.004
    for seed, expected in ((None, step**2 / 12), (7, step**2 / 6)):
        back = decode(encode(values, step=step, seed=seed))
        assert np.mean((back - values) ** 2.0) == pytest.approx(expected, rel=0.02)


@pytest.mark.usefixtures("level")
def test_a_seed_gives_the_same_codes_whatever_the_processor() -> None:
    values = ((np.arange(5001) * 7919 % 1000 - 500) / 1000).astype(np.float32)
    back = decode(encode(values, step=0.01, seed=2**40))
    assert model.digest(back).hex() == "ca4ea2ef85c1c3b8"


def test_a_seed_decides_the_bytes() -> None:
    values = state_dict()
    first = encode(values, step=0.01, seed=5)
    assert first == encode(values, step=0.01, seed=5)
    assert first == encode(values, step=0.01, seed=5, threads=3)
    assert first != encode(values, step=0.01, seed=6)
    assert encode(values, step=0.01) == encode(values, step=0.01)


def test_threads_change_nothing() -> None:
    values: Values = {"a": weights(3_000_000), "b": np.arange(700_000)}
    archive = encode(values, step=0.001, seed=1)
    assert archive == encode(values, step=0.001, seed=1, threads=4)
    one, four = decode(archive), decode(archive, threads=4)
    assert all(same(one[name], four[name]) for name in values)


@profile(max_examples=30)
@given(st.integers(1, 40_000), st.floats(0.5, 200), st.none() | st.integers(0, 9))
def test_a_ratio_is_kept_or_refused(count: int, ratio: float, seed: int | None) -> None:
    values: Values = {
        "w": weights(count),
        "h": weights(count, 2).astype(np.float16),
        "n": np.arange(3),
    }
    try:
        archive = encode(values, ratio=ratio, seed=seed)
    except CodecError as error:
        assert "the ratio leaves" in str(error)
        assert len(encode(values, step=1e6)) > (8 * count + 24) / ratio
        return
    assert len(archive) <= (8 * count + 24) / ratio


@pytest.mark.parametrize("ratio", [2.5, 8, 60, 400])
@pytest.mark.parametrize("seed", [None, 3])
def test_a_ratio_is_kept_without_waste_where_a_sample_decides(
    ratio: float, seed: int | None
) -> None:
    values: Values = {"a": weights(4_000_000), "b": weights(1_000_000, 2) * np.float32(5)}
    archive = encode(values, ratio=ratio, seed=seed)
    assert 0.95 < len(archive) * ratio / 20_000_000 <= 1


def test_a_ratio_that_needs_no_loss_loses_nothing() -> None:
    values = weights(50_000)
    assert same(decode(encode(values, ratio=1.1)), values)
    nothing = np.zeros(5000, np.float32)
    assert same(decode(encode(nothing, ratio=20)), nothing)


# ---- Estimates -----------------------------------------------------------------------

ASKED: list[dict[str, Any]] = [
    {}, {"step": 0.0002}, {"step": 0.01}, {"step": 0.1, "seed": 1}, {"step": 1.0, "seed": 1},
    {"grid_bits": 3}, {"grid_bits": 10, "seed": 1}, {"ratio": 9}, {"ratio": 90, "seed": 1},
]  # fmt: skip


def asked_id(asked: dict[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in asked.items()) or "exact"


@pytest.mark.parametrize("asked", ASKED, ids=asked_id)
def test_an_estimate_is_within_a_few_percent(asked: dict[str, Any]) -> None:
    # Tensors of several sizes and magnitudes, as models have them, and others.
    values: dict[str, Any] = {
        f"layer.{n}": weights(size, n) * np.float32(1 + n % 4)
        for n, size in enumerate([3_000_000, 1_000_003, *[40_000] * 40, *[64] * 40])
    }
    values["half"] = torch.from_numpy(weights(900_001)).to(torch.bfloat16)
    values["count"] = np.arange(300_000) % 7
    assert estimate(values, **asked) == pytest.approx(len(encode(values, **asked)), rel=0.03)


@pytest.mark.parametrize("asked", ASKED, ids=asked_id)
def test_an_estimate_of_few_values_is_exact(asked: dict[str, Any]) -> None:
    values: Values = {"a": weights(60_000), "b": torch.arange(10), "c": np.zeros((0, 3))}
    assert estimate(values, **asked) == pytest.approx(len(encode(values, **asked)), abs=0.5)


# ---- Memory and time -------------------------------------------------------------------


@pytest.mark.parametrize("asked", [{}, {"step": 0.001}, {"grid_bits": 2}], ids=asked_id)
def test_memory_is_that_of_input_output_and_some_chunks(asked: dict[str, Any]) -> None:
    values: Values = {"a": weights(8_000_000), "b": weights(8_000_000).astype(np.float16)}
    tracemalloc.start()
    try:
        archive = encode(values, **asked)
        _, peak = tracemalloc.get_traced_memory()
        # The output may have grown beyond its size by an eighth.
        assert peak < 1.13 * len(archive) + 24 * MB
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        decode(archive)
        _, peak = tracemalloc.get_traced_memory()
        assert peak - before < 48_000_000 + 24 * MB
    finally:
        tracemalloc.stop()


def test_arrays_of_numpy_need_no_torch() -> None:
    program = (
        "import sys, fedaq; assert 'numpy' not in sys.modules and 'fedaq.codec' not in sys.modules;"
        "import numpy as np; from fedaq.codec import decode, encode;"
        "x = np.arange(9.0); assert (decode(encode({'x': x}))['x'] == x).all();"
        "assert decode(encode(x, step=1.0)).tolist() == x.tolist();"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# ---- What cannot be ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "asked", "said"),
    [
        (weights(9), {"step": 0.1, "ratio": 3}, "exclude each other"),
        (weights(9), {"step": 0.0}, "finite and at least"),
        (weights(9), {"step": np.nan}, "finite and at least"),
        (weights(9), {"grid_bits": 17}, "1 to 16 bits"),
        (weights(9), {"ratio": 0}, "above 0"),
        (weights(9), {"ratio": 1000}, "the ratio leaves 0 bytes"),
        ({"a.b": np.array([1, np.nan])}, {"step": 0.1}, r"'a.b' cannot be .* travels exactly"),
        ({"a": np.array([1e300])}, {"step": 0.1}, "'a' cannot be quantized"),
        ({"a": np.array([2.0**125], np.float32)}, {"step": 2.0**127}, "reaches beyond"),
        ([1.0, 2.0], {}, "of type list"),
        ({"a": 1.0}, {}, "'a' is of type float"),
        ({1: weights(2)}, {}, "no name"),
        ({"": weights(2)}, {}, "no name"),
        (np.array(["a"]), {}, "none of"),
        (np.zeros(2, "M8[s]"), {}, "none of"),
        (torch.eye(3).to_sparse(), {}, "sparse"),
        (torch.empty(3, device="meta"), {}, "without values"),
        ({str(n): np.arange(1) for n in range(12_501)}, {}, "at most 100000 tensors"),
    ],
)
def test_what_cannot_be_encoded_is_said_in_a_line(
    values: Any, asked: dict[str, Any], said: str
) -> None:
    with pytest.raises(CodecError, match=said) as told:
        encode(values, **asked)
    assert "\n" not in str(told.value)
    with pytest.raises(CodecError, match=said):
        estimate(values, **asked)


def test_the_error_is_one_of_values() -> None:
    with pytest.raises(ValueError, match="do not begin"):
        decode(b"PK\x03\x04 and so on, which is another format")
