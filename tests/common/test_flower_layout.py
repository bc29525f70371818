"""What becomes of an app's arrays, without Flower."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fedaq.codec.model import Kind
from fedaq.flower import layout

DTYPES = ["float16", "float32", "float64", "int8", "int64", "uint32", "bool", "complex64"]
ANY = st.sampled_from(DTYPES).flatmap(
    lambda dtype: arrays.arrays(
        dtype,
        arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
        # What float32 holds.
        elements=st.floats(width=16) if dtype.startswith("float") else None,
    )
)


@given(st.dictionaries(st.text(max_size=8), ANY, max_size=6))
def test_arrays_come_back_as_they_were(given_arrays: layout.Arrays) -> None:
    found = layout.layout_of(given_arrays)
    assert layout.from_message(layout.to_message(found)) == found
    exact = found.as_they_are(given_arrays)
    assert len(exact) == found.exact_bytes
    back = found.arrays(found.flat(given_arrays), exact)
    assert list(back) == list(given_arrays)
    for name, values in given_arrays.items():
        assert (back[name].dtype, back[name].shape) == (values.dtype, values.shape)
        np.testing.assert_array_equal(back[name], values)


def test_names_and_dtypes_tell_what_is_coded_and_how() -> None:
    found = layout.layout_of(
        {
            "bn.running_mean": np.zeros(4, np.float32),
            "bn.running_var": np.ones(4, np.float32),
            "bn.num_batches_tracked": np.array(7.0),
            "lone.running_mean": np.zeros(2, np.float32),
            "weight": np.zeros((2, 3), np.float64),
            "labels": np.arange(3),
        }
    )
    assert [name for name, exact in zip(found.names, found.exact, strict=True) if exact] == [
        "bn.num_batches_tracked",
        "labels",
    ]
    weight, statistics = found.spec.tensors
    assert (weight.name, weight.kind) == ("weight", Kind.CODED)
    assert statistics.kind == Kind.STATISTICS
    assert [(member.name, member.kind) for member in statistics.members] == [
        ("bn.running_mean", Kind.MEAN),
        ("bn.running_var", Kind.VARIANCE),
        ("lone.running_mean", Kind.CODED),
    ]


@pytest.mark.parametrize(
    ("given_arrays", "reason"),
    [
        ({"names": np.array(["a", "b"])}, "array 'names' is of dtype"),
        ({"objects": np.array([None], object)}, "array 'objects' is of dtype 'object'"),
        ({"times": np.array([1], "datetime64[s]")}, "array 'times' is of dtype"),
    ],
)
def test_what_holds_no_numbers_is_refused(given_arrays: layout.Arrays, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        layout.layout_of(given_arrays)


def test_a_layout_from_a_peer_is_checked() -> None:
    good = layout.to_message(layout.layout_of({"weight": np.zeros(3, np.float32)}))
    twice = type(good)(arrays=[good.arrays[0]] * 2)
    huge = type(good)(arrays=[good.arrays[0]])
    huge.arrays[0].shape[:] = [2**20, 2**20]
    odd = type(good)(arrays=[good.arrays[0]])
    odd.arrays[0].dtype = "int64"
    for message, reason in ((twice, "one name"), (huge, "too many"), (odd, "cannot be sent")):
        with pytest.raises(ValueError, match=reason):
            layout.from_message(message)


BLOCKED = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "flwr":
            raise ModuleNotFoundError("no flwr", name="flwr")
sys.meta_path.insert(0, Missing())
import fedaq.flower
assert "torch" not in sys.modules
for name in ("coded", "Coded"):
    try:
        getattr(fedaq.flower, name)
    except ImportError as error:
        print(error)
"""


def test_without_flower_one_line_says_what_to_install() -> None:
    said = subprocess.run(
        [sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert said == [
        "fedaq.flower.coded needs flwr: pip install 'fedaq[client,flower]'",
        "fedaq.flower.Coded needs flwr: pip install 'fedaq[server,flower]'",
    ]
