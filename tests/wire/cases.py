"""Random payloads for property tests: models, bits, values."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

import packed_codes
from fedaq.codec import payload
from fedaq.codec.model import ModelSpec, TensorSpec
from fedaq.codec.payload import Payload
from fedaq.codec.quantizer import RAW_BITS, Floats, Key, Range, value_range

WIDTHS = st.one_of(st.integers(1, 16), st.just(RAW_BITS))
SHAPES = st.one_of(
    st.just(()),
    st.just((0,)),
    st.integers(1, 70).map(lambda n: (n,)),
    st.tuples(st.integers(0, 9), st.integers(1, 9)),
)
SPECS = st.lists(SHAPES, min_size=1, max_size=5).map(
    lambda shapes: ModelSpec(tuple(TensorSpec(f"t{i}", s) for i, s in enumerate(shapes)))
)
# Around the least, 16 bytes, whole groups of some widths fit and those of others do not.
CHUNK_BYTES = st.one_of(st.integers(16, 64), st.sampled_from([1024, 4096, 2**20]))


def ranges_of(spec: ModelSpec, flat: Floats) -> list[Range]:
    return [value_range(values) for values in spec.split(flat)]


@dataclass(frozen=True)
class Sent:
    """A tensor list that was coded: the header, the values, the code bytes of all tensors."""

    header: Payload
    flat: Floats
    keys: tuple[Key, ...]

    def chunks(self, chunk_bytes: int) -> list[tuple[int, memoryview]]:
        return [
            (
                offset,
                packed_codes.encode_chunk(
                    self.header, self.flat.__getitem__, self.keys, offset, length
                ),
            )
            for offset, length in self.header.chunks(chunk_bytes)
        ]


@st.composite
def payloads(
    draw: st.DrawFn,
    specs: st.SearchStrategy[ModelSpec] = SPECS,
    exponents: st.SearchStrategy[int] = st.integers(-30, 15),  # noqa: B008
) -> Sent:
    """Draw a payload whose tensors have scales and centres of very different size."""
    spec = draw(specs)
    bits = tuple(draw(WIDTHS) for _ in spec.tensors)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    flat = np.concatenate(
        [
            rng.uniform(-1, 1, n) * 2.0 ** draw(exponents)
            + rng.choice([0.0, 1.0, -1.0]) * 2.0 ** draw(exponents)
            for n in spec.elements
        ]
    ).astype(np.float32)
    header = payload.plan_payload(spec, bits, ranges_of(spec, flat))
    return Sent(header, flat, payload.transfer_keys(spec, draw(st.integers(0, 9)), "test"))
