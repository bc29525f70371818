"""Model signatures, and the flat array that a module shares."""

import tracemalloc
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fedaq.codec import model
from fedaq.codec.model import ModelSpec, TensorSpec
from fedaq.errors import UserError
from fedaq.modules.bound import Bound
from fedaq.modules.signature import spec_of
from fedaq.v1 import federation_pb2 as pb
from odd_models import FINE, REFUSED
from wire.cases import SPECS


class Mixed(nn.Module):
    """Parameters, float and integer buffers, a scalar."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = self.norm(self.linear(inputs)) * self.scale
        return output


class Tied(nn.Module):
    """One weight under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embedding.weight


def test_a_signature_lists_the_floating_point_state_in_order() -> None:
    assert [str(tensor) for tensor in spec_of(Mixed()).tensors] == [
        "scale scalar",
        "linear.weight 2x3",
        "linear.bias 2",
        "norm.weight 2",
        "norm.bias 2",
        "statistics (2 tensors, 4 values)",
    ]
    assert [str(tensor) for tensor, _ in spec_of(Mixed()).named][-2:] == [
        "norm.running_mean 2",
        "norm.running_var 2",
    ]


def test_a_tied_weight_travels_once_and_stays_tied() -> None:
    module = Tied()
    spec = spec_of(module)
    assert [tensor.name for tensor in spec.tensors] == ["embedding.weight"]
    flat = Bound(module, spec).flat
    flat[:] = np.arange(20)
    assert module.head.weight.tolist() == np.arange(20.0).reshape(5, 4).tolist()


@pytest.mark.parametrize("case", REFUSED)
def test_a_model_that_cannot_travel_is_refused(case: str) -> None:
    make, said = REFUSED[case]
    with pytest.raises(UserError, match=r"^model: ") as refused:
        spec_of(make())
    assert said in str(refused.value)


@pytest.mark.parametrize("case", FINE)
def test_a_model_that_looks_odd_travels(case: str) -> None:
    """All of its values are in the array, in order, and what is written there is in the module."""
    module = FINE[case]()
    spec = spec_of(module)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    bound = Bound(module, spec)
    assert spec_of(module) == spec
    state = module.state_dict()
    assert state.keys() == before.keys()
    for name, value in state.items():
        # torch compares no sparse tensors, and no quantized ones with strides.
        same = (value, before[name]) if value.is_floating_point() else (1, 1)
        assert same[0] is same[1] or torch.equal(*same), name
    # Numbers that a bfloat16 can hold.
    values = np.arange(bound.flat.size, dtype=np.float32) % 128
    bound.load(values)
    for tensor, part in spec.named:
        value = module.state_dict()[tensor.name]
        real = torch.view_as_real(value) if value.is_complex() else value
        assert real.ravel().tolist() == bound.flat[part].tolist()
    with torch.no_grad():
        for _, value in module.named_parameters():
            value.copy_(value + 1 if value.requires_grad else value)
    bound.gather()
    trained = {name for name, value in module.named_parameters() if value.requires_grad}
    for tensor, part in spec.named:
        moved = bound.flat[part] - values[part]
        assert moved.any() == (tensor.name in trained and tensor.elements > 0)


@pytest.mark.parametrize("case", ["tied", "tied to a buffer"])
def test_what_is_tied_through_data_travels_once_and_stays_tied(case: str) -> None:
    module: Any = FINE[case]()
    spec = spec_of(module)
    assert [tensor.name.removesuffix("second") for tensor in spec.tensors] == (
        ["", "linear.bias"] if case == "tied" else ["linear.weight", "linear.bias"]
    )
    flat = Bound(module, spec).flat
    flat[:640] = np.arange(640)
    assert module.second.ravel().tolist() == np.arange(640.0).tolist()
    assert module.linear.weight.ravel().tolist() == np.arange(640.0).tolist()
    with torch.no_grad():
        module.second.fill_(3)
    assert (flat[:640] == 3).all()


VIEWS = st.lists(
    st.tuples(
        st.integers(0, 12),
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), min_size=1, max_size=2),
        st.booleans(),
    ),
    min_size=1,
    max_size=4,
)


@given(VIEWS)
def test_whatever_views_of_one_memory_tensors_are_none_are_parted_or_joined(
    views: list[tuple[int, list[tuple[int, int]], bool]],
) -> None:
    """Refused is what shares a value with itself or with another view, and nothing else."""
    memory, module = torch.arange(64.0), nn.Module()
    places: list[tuple[int, ...]] = []
    for number, (offset, dimensions, persistent) in enumerate(views):
        shape, strides = zip(*dimensions, strict=True)
        value = memory.as_strided(shape, strides, offset)
        module.register_buffer(f"b{number}", value, persistent=persistent or number == 0)
        places.append(tuple(value.ravel().int().tolist()))
    sent = [persistent or number == 0 for number, (*_, persistent) in enumerate(views)]
    overlaps = any(len(set(place)) < len(place) for place, s in zip(places, sent, strict=True) if s)
    pairs = [*combinations(range(len(views)), 2)]
    shapes = [tuple(value.shape) for value in module.buffers()]
    for one, two in pairs:
        if set(places[one]) & set(places[two]) and (sent[one] or sent[two]):
            overlaps |= places[one] != places[two] or shapes[one] != shapes[two]
    before = [value.clone() for value in module.buffers()]
    try:
        spec = spec_of(module)
    except UserError as error:
        empty = not any(place for place, s in zip(places, sent, strict=True) if s)
        assert overlaps or empty or "is a view whose values" in str(error)
        if not overlaps and not empty:
            assert any(len(dims) == 2 and _crosses(dims) for _, dims, _ in views)
        return
    assert not overlaps
    flat = Bound(module, spec).flat
    after = [*module.buffers()]
    assert all(map(torch.equal, before, after))
    flat[:] = np.arange(flat.size)
    seen = [set(value.ravel().tolist()) for value in after]
    for one, two in pairs:
        if sent[one] and sent[two]:
            assert bool(seen[one] & seen[two]) == bool(set(places[one]) & set(places[two]))


def _crosses(dimensions: list[tuple[int, int]]) -> bool:
    """Tell whether rows reach into one another, so that nobody counts which values they share."""
    (stride, count), (larger, _) = sorted((stride, count) for count, stride in dimensions)
    return larger <= stride * (count - 1)


def test_binding_keeps_the_values() -> None:
    module = Mixed()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    flat = Bound(module, spec_of(module)).flat
    assert flat.dtype == np.float32
    assert flat.shape == (spec_of(module).parameters,)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])


def test_what_is_written_to_the_array_is_what_the_module_computes_with() -> None:
    module = Mixed()
    spec = spec_of(module)
    flat = Bound(module, spec).flat
    flat[:] = np.arange(flat.size)
    names = {tensor.name: flat[part] for tensor, part in spec.named}
    for name, view in names.items():
        assert module.state_dict()[name].ravel().tolist() == view.tolist()
    module.eval()
    other = Mixed()
    other.load_state_dict(module.state_dict())
    inputs = torch.ones(4, 3)
    assert torch.equal(module(inputs), other.eval()(inputs))


def test_training_moves_the_array_parameters_and_buffers_alike() -> None:
    module = Mixed()
    spec = spec_of(module)
    flat = Bound(module, spec).flat
    before = flat.copy()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.5)
    (module(torch.randn(8, 3)) - 1).square().sum().backward()
    optimizer.step()
    for tensor, part in spec.named:
        old, new = before[part], flat[part]
        moved = module.state_dict()[tensor.name].ravel().tolist()
        assert new.tolist() == moved
        # A bias before a batch norm has no gradient to speak of.
        assert tensor.name == "linear.bias" or (new != old).any(), tensor.name


@given(SPECS)
def test_split_gives_views_that_cover_the_array(spec: ModelSpec) -> None:
    flat = np.arange(spec.parameters, dtype=np.float32)
    views = list(spec.split(flat))
    assert tuple(view.size for view in views) == spec.elements
    assert np.concatenate(views).tolist() == flat.tolist()
    for view in views:
        view[:] = -1
    assert (flat == -1).all()


def test_mean_bits_weighs_each_tensor_by_its_values() -> None:
    spec = ModelSpec((TensorSpec("a", (3,)), TensorSpec("b", ())))
    assert spec.mean_bits((2, 32)) == (3 * 2 + 32) / 4


@given(SPECS)
def test_a_signature_comes_back_as_it_went(spec: ModelSpec) -> None:
    data = model.to_message(spec).SerializeToString()
    back = model.from_message(pb.ModelSignature.FromString(data))
    assert back == spec
    assert spec.difference(back) is None


A, B = TensorSpec("a", (2, 3)), TensorSpec("b", ())


@pytest.mark.parametrize(
    ("mine", "theirs", "said"),
    [
        ((A, B), (A, TensorSpec("b", (1,))), "tensor 2 is b scalar here and b 1 there"),
        ((A, B), (B, A), "tensor 1 is a 2x3 here and b scalar there"),
        ((A, B), (TensorSpec("a", (3, 2)), B), "tensor 1 is a 2x3 here and a 3x2 there"),
        ((A,), (A, B), "tensor 2 is missing here and b scalar there"),
        ((A, B), (A,), "tensor 2 is b scalar here and missing there"),
        ((A,), (), "tensor 1 is a 2x3 here and missing there"),
    ],
)
def test_a_difference_is_told_by_its_first_tensor(
    mine: tuple[TensorSpec, ...], theirs: tuple[TensorSpec, ...], said: str
) -> None:
    assert ModelSpec(mine).difference(ModelSpec(theirs)) == said


def signature(*shapes: list[int], dtype: "pb.DataType" = pb.DATA_TYPE_FLOAT32) -> pb.ModelSignature:
    return pb.ModelSignature(
        tensors=[pb.TensorSpec(name="x", shape=s, dtype=dtype) for s in shapes]
    )


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (signature([2], dtype=pb.DATA_TYPE_UNSPECIFIED), "'x' is not float32"),
        (signature([2], dtype=9), "'x' is not float32"),  # type: ignore[arg-type]
        (signature([2**16, 2**16]), "'x' has more than 4294967295 values"),
        (signature([2**64 - 1]), "'x' has more than"),
        (signature([1] * 65), "'x' has more than 64 dimensions"),
        # To multiply these takes twenty seconds.
        (signature([2**64 - 1] * 100_000), "'x' has more than 64 dimensions"),
        (signature(*[[1]] * 100_001), "more than 100000 tensors"),
    ],
)
def test_an_impossible_signature_is_refused(message: pb.ModelSignature, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        model.from_message(message)


def test_the_largest_tensor_is_read_without_room_for_its_values() -> None:
    tracemalloc.start()
    try:
        spec = model.from_message(signature([2**32 - 1], [0, 2**64 - 1]))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert spec.elements == (2**32 - 1, 0)
    assert peak < 100_000
