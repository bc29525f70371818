"""Statistics of normalization layers in units that follow their values."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedaq.codec import coding, statistics
from fedaq.codec.model import Kind, ModelSpec, TensorSpec, group
from fedaq.codec.payload import TensorCode, plan_payload, tensor_spreads, transfer_keys
from fedaq.codec.quantizer import Floats
from fedaq.modules.bound import Bound
from fedaq.modules.signature import spec_of

N = 5
SPEC = ModelSpec(
    (
        TensorSpec("weight", (3, 2)),
        group(
            "statistics",
            Kind.STATISTICS,
            (
                TensorSpec("mean", (N,), Kind.MEAN),
                TensorSpec("variance", (N,), Kind.VARIANCE),
                TensorSpec("other", (2,)),
            ),
        ),
    )
)
VARIANCE = slice(N, 2 * N)
POSITIVE = st.floats(0, 1e6, width=32)
ANY = st.floats(-1e6, 1e6, width=32)
HELD = st.tuples(
    st.lists(ANY, min_size=N, max_size=N),
    st.lists(POSITIVE, min_size=N, max_size=N),
    st.lists(ANY, min_size=2, max_size=2),
).map(lambda parts: np.array([*parts[0], *parts[1], *parts[2]], np.float32))
CHANGE = st.lists(
    st.floats(-(2.0**15), 2.0**15, width=32), min_size=len(range(2 * N + 2)), max_size=2 * N + 2
).map(lambda values: np.array(values, np.float32))

SHARE = st.sampled_from([statistics.UPLINK, statistics.DOWNLINK])


@given(HELD, SHARE)
def test_units_are_powers_of_two_near_what_they_are_relative_to(held: Floats, share: float) -> None:
    unit = statistics.units(SPEC, held, share)
    assert (np.frexp(unit)[0] == 0.5).all()
    fineness, epsilon = share, np.float32(statistics.EPSILON)
    variances = held[VARIANCE] + epsilon
    assert (unit[VARIANCE] <= fineness * variances).all()
    assert (2 * unit[VARIANCE] > fineness * variances).all()
    # A mean counts in deviations: the square of its unit is near the variance.
    squares = [Fraction(float(u / fineness)) ** 2 for u in unit[:N]]
    for square, variance in zip(squares, variances.tolist(), strict=True):
        assert Fraction(variance) / 4 < square <= Fraction(variance)


@given(HELD, CHANGE, SHARE)
def test_to_divide_by_units_and_back_changes_no_bit(
    held: Floats, change: Floats, share: float
) -> None:
    unit = statistics.units(SPEC, held, share)
    scaled = change * unit
    divided = scaled.copy()
    statistics.in_units(divided, unit)
    big = np.abs(scaled) > 1e-30
    assert (divided[big] * unit[big] == scaled[big]).all()


@given(HELD, CHANGE, SHARE)
def test_no_change_makes_a_variance_negative_or_vanish(
    held: Floats, change: Floats, share: float
) -> None:
    after = statistics.changed(SPEC, held, change, statistics.units(SPEC, held, share))
    assert (after[VARIANCE] >= 0).all()
    assert (after[VARIANCE][held[VARIANCE] > 1e-30] > 0).all()


@given(HELD, HELD, st.integers(1, 16), st.sampled_from([0.0, 1e-3, 0.1, 1.0, 30.0]), st.booleans())
def test_no_width_or_step_decodes_a_variance_below_zero(
    held: Floats, ahead: Floats, bits: int, step: float, nearest: bool
) -> None:
    """As it travels down: coded, decoded and added to what is held."""
    weights = np.zeros(6, np.float32)
    model, target = np.concatenate([weights, held]), np.concatenate([weights, ahead])
    gain = statistics.Scaled(SPEC, target, model)
    spreads = tensor_spreads(SPEC, gain.__getitem__)
    header = plan_payload(SPEC, (1, bits), spreads, (0.0, step))
    keys = transfer_keys(SPEC, 1, "downlink", 1)
    chunks = [
        coding.encode(
            header, gain.__getitem__, keys, offset, length, 1, squeeze=True, nearest=nearest
        )[0]
        for offset, length in header.chunks(64)
    ]
    before = statistics.taken_out(SPEC, model)
    for chunk in chunks:
        coding.decode_into(header, chunk, model, add=True)
    statistics.put_back(SPEC, model, before)
    assert (model[6:][VARIANCE] >= 0).all()
    code: TensorCode = header.codes[1]
    if code.grid is not None:
        # What is not cut is as near as the step says, in the units of what was held.
        change = gain[slice(6, 18)]
        unit = statistics.units(SPEC, held, statistics.DOWNLINK)
        near = np.abs(model[6:] - held - change * unit)
        free = np.abs(change) < statistics.LARGEST_CHANGE
        free[VARIANCE] &= model[6:][VARIANCE] > held[VARIANCE] * 2.0**-7
        room = 1.001 * code.grid.step * unit + 1e-6 * np.abs(held) + 1e-6
        assert (near[free] <= room[free]).all()


@given(HELD, HELD, st.sampled_from([0.05, 0.125, 0.4, 1.0]))
def test_no_variance_that_falls_is_held_below_what_it_is(
    held: Floats, ahead: Floats, step: float
) -> None:
    weights = np.zeros(6, np.float32)
    model, target = np.concatenate([weights, held]), np.concatenate([weights, ahead])
    gain = statistics.Scaled(SPEC, target, model)
    spreads = tensor_spreads(SPEC, gain.__getitem__)
    header = plan_payload(SPEC, (1, 8), spreads, (0.0, step))
    rounded = statistics.kept_high(header, gain.__getitem__, held)
    assert rounded(slice(0, 6)).tobytes() == gain[slice(0, 6)].tobytes()
    values = rounded(slice(6, 18))
    if not header.codes[1].step:
        assert values.tobytes() == gain[slice(6, 18)].tobytes()
        return
    step = header.codes[1].step
    codes = step * np.floor(values / step + 0.5)
    # Of any part of them, the same.
    assert values[1::2].tobytes() == rounded(slice(7, 18, 2)).tobytes()
    after = statistics.changed(
        SPEC, held, codes.astype(np.float32), statistics.units(SPEC, held, statistics.DOWNLINK)
    )
    falls = ahead[VARIANCE] < held[VARIANCE]
    assert (after[VARIANCE] >= ahead[VARIANCE] - 1e-5 * held[VARIANCE])[falls].all()
    others = np.delete(np.arange(12), np.arange(12)[VARIANCE][falls])
    assert (values[others] == gain[slice(6, 18)][others]).all()


def test_raw_statistics_arrive_to_the_bit() -> None:
    """Division by powers of two: plain averaging stays plain averaging."""
    generator = np.random.default_rng(1)
    held = np.abs(generator.normal(size=2 * N + 2)).astype(np.float32)
    ahead = np.abs(generator.normal(size=2 * N + 2)).astype(np.float32)
    change = (ahead - held).astype(np.float32)
    scaled = change.copy()
    unit = statistics.units(SPEC, held, statistics.UPLINK)
    statistics.in_units(scaled, unit)
    assert statistics.changed(SPEC, held, scaled, unit).tobytes() == (held + change).tobytes()


def test_layers_are_found_whatever_their_class() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("running_mean", torch.zeros(3))
            self.register_buffer("running_var", torch.ones(3))

    module = nn.Sequential(
        nn.Linear(3, 3), nn.BatchNorm1d(3), nn.InstanceNorm1d(3, track_running_stats=True), Own()
    )
    spec = spec_of(module)
    last = spec.tensors[-1]
    assert last.kind == Kind.STATISTICS
    assert [(m.name, m.kind) for m in last.members] == [
        (f"{layer}.{name}", kind)
        for layer in (1, 2, 3)
        for name, kind in (("running_mean", Kind.MEAN), ("running_var", Kind.VARIANCE))
    ]


def test_a_task_says_what_becomes_of_a_tensor() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    spec = spec_of(module, patterns={"1.running_*": "local", "2.*": "server", "0.bias": "frozen"})
    assert [(t.name, t.kind) for t in spec.tensors] == [
        ("0.weight", Kind.CODED),
        ("1.weight", Kind.CODED),
        ("1.bias", Kind.CODED),
        ("2.weight", Kind.SERVER),
        ("2.bias", Kind.SERVER),
    ]
    assert spec.frozen
    with torch.no_grad():
        module.get_parameter("0.bias")[0] += 1
    assert spec_of(module, patterns={"0.bias": "frozen"}).frozen != spec.frozen


@pytest.mark.parametrize("moved", ["assigned", "replaced", "to another type and back"])
def test_what_training_puts_in_the_place_of_a_weight_is_gathered(moved: str) -> None:
    module = nn.Linear(3, 2)
    spec = spec_of(module)
    bound = Bound(module, spec)
    if moved == "assigned":
        state = {name: value + 1 for name, value in module.state_dict().items()}
        module.load_state_dict(state, assign=True)
    elif moved == "replaced":
        module.weight = nn.Parameter(module.weight.detach() + 1)
    else:
        module.to(torch.float64)
        with torch.no_grad():
            module.weight.add_(1)
        module.to(torch.float32)
    bound.gather()
    assert bound.flat[:6].tolist() == module.weight.detach().ravel().tolist()
    bound.load(np.arange(8, dtype=np.float32))
    assert module.weight.detach().ravel().tolist() == list(range(6))


def test_statistics_travel_under_one_header() -> None:
    spec = spec_of(nn.Sequential(*(nn.BatchNorm1d(3, affine=False) for _ in range(10))))
    assert [str(tensor) for tensor in spec.tensors] == ["statistics (20 tensors, 60 values)"]
