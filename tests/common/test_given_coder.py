"""The coder of codes by classes against an encoder and a decoder with numbers of any size.

`wire.oracle_classes` is written from docs/reference/wire-format.md, and carries nothing: a carry
that is lost in the loops makes other bytes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedaq.codec import kernels
from wire import oracle_classes

pytestmark = pytest.mark.usefixtures("level")
Bytes = NDArray[np.uint8]
TURNED, GUARD = 128, 0xA5
# Odds are made anew after so many values, and then each 4,096.
ENDS = (32, 96, 224, 480, 992, 2016, 4064)
SIZES = st.one_of(
    st.integers(0, 40),
    st.tuples(st.sampled_from(ENDS), st.integers(-2, 2)).map(sum),
    st.integers(8100, 8300),
)


@dataclass(frozen=True)
class Case:
    """Codes, and what both ends know of them."""

    codes: Bytes
    classes: Bytes
    zero: int
    bits: int

    @property
    def known(self) -> list[oracle_classes.Class]:
        return [(c % TURNED, c >= TURNED) for c in self.classes.tolist()]

    def expected(self) -> bytes:
        return oracle_classes.encode(self.codes.tolist(), self.known, self.zero)

    def encoded(self, room: int | None = None) -> bytes | None:
        """Return what the loop writes, and check that it writes nowhere else."""
        room = 12 * self.codes.size + 99 if room is None else room
        out = np.full(room + 16, GUARD, np.uint8)
        length = kernels.encode_given(self.codes, self.classes, self.zero, out[:room])
        assert (out[room:] == GUARD).all()
        return None if length is None else out[:length].tobytes()

    def decoded(self, data: bytes, beyond: int = GUARD) -> list[int]:
        """Return the codes that the loop reads from `data`, behind which other bytes stand."""
        content = np.concatenate([np.frombuffer(data, np.uint8), np.full(16, beyond, np.uint8)])[
            : len(data)
        ]
        codes = np.full(self.codes.size + 16, GUARD, np.uint8)
        kernels.decode_given(content, self.classes, self.zero, self.bits, codes[: self.codes.size])
        assert (codes[self.codes.size :] == GUARD).all()
        found: list[int] = codes[: self.codes.size].tolist()
        return found


def case(
    count: int, bits: int, zero: int, scale: float, classes: int, turned: bool, seed: int
) -> Case:
    """Return codes around `zero` whose distances are about `scale`, and as many classes."""
    rng = np.random.default_rng(seed)
    codes = np.clip(np.rint(rng.laplace(0, scale, count)) + zero, 0, 2**bits - 1)
    known = rng.permutation(64)[:classes][rng.integers(0, classes, count)]
    known = known + TURNED * turned * rng.integers(0, 2, count)
    return Case(codes.astype(np.uint8), known.astype(np.uint8), zero, bits)


@st.composite
def cases(draw: st.DrawFn, sizes: st.SearchStrategy[int] = SIZES) -> Case:
    bits = draw(st.integers(1, 8))
    return case(
        draw(sizes),
        bits,
        draw(st.integers(0, 2**bits - 1)),
        draw(st.sampled_from([0.02, 0.2, 1.0, 9.0, 100.0])),
        draw(st.sampled_from([1, 3, 64])),
        draw(st.booleans()),
        draw(st.integers(0, 2**32 - 1)),
    )


@given(cases())
@settings(max_examples=12)
def test_bytes_are_those_of_the_page_and_bring_the_codes_back(one: Case) -> None:
    data = one.encoded()
    assert data == one.expected()
    assert one.decoded(data) == one.codes.tolist()


def test_odds_forget_what_is_long_ago() -> None:
    """More answers than are counted in full, of codes that become others."""
    halves = [
        case(count, 3, 2, scale, 1, False, 1) for count, scale in ((66_000, 0.1), (14_000, 1))
    ]
    codes = np.concatenate([half.codes for half in halves])
    one = Case(codes, np.full_like(codes, 5), 2, 3)
    data = one.encoded()
    assert data == one.expected()
    assert one.decoded(data) == codes.tolist()


@given(st.integers(1, 8), st.data(), st.integers(1, 9000))
@settings(max_examples=10)
def test_codes_that_are_all_alike_take_next_to_nothing(
    bits: int, data: st.DataObject, count: int
) -> None:
    code, zero = (data.draw(st.sampled_from([0, 2**bits - 1])) for _ in range(2))
    one = Case(np.full(count, code, np.uint8), np.zeros(count, np.uint8), zero, bits)
    coded = one.encoded()
    assert coded == one.expected()
    assert one.decoded(coded) == one.codes.tolist()
    if code == zero:
        assert coded == b""
    elif bits == 1:
        # Until the odds are learned.
        assert len(coded) < 80 + count // 100


@pytest.mark.parametrize("zeros", [5, 40, 400])
@pytest.mark.parametrize("first", [0x37, 0x80, 0xC3])
def test_a_carry_runs_through_all_that_is_written(first: int, zeros: int) -> None:
    """Codes whose number is a digit, many 0 bytes and a few others.

    Until those come, the coder is below that number by less than its range: it writes the digit
    before and bytes of 255, which one carry then makes 0.
    """
    data = bytes((first,)) + bytes(zeros) + b"\x5a\x17\xe1"
    codes = []
    for code, read in oracle_classes.read_codes(data, [(0, False)] * 40_000, 100, 8):
        codes.append(code)
        if read >= len(data) + 8:
            break
    assert len(codes) < 40_000
    one = Case(np.array(codes, np.uint8), np.zeros(len(codes), np.uint8), 100, 8)
    found = one.encoded()
    assert found == one.expected()
    assert found is not None
    assert found.startswith(data[: zeros + 1])
    assert one.decoded(found) == codes


@given(cases(), st.data())
@settings(max_examples=12)
def test_without_room_nothing_comes_of_it(one: Case, data: st.DataObject) -> None:
    whole = one.encoded()
    assert whole is not None
    assert one.encoded(len(whole)) == whole
    if whole:
        assert one.encoded(data.draw(st.integers(0, len(whole) - 1))) is None


# ---- Hostile data ---------------------------------------------------------------


def judged(decode: Callable[[], list[int]]) -> list[int] | None:
    """Return the codes, or None if they are refused."""
    try:
        return decode()
    except (ValueError, oracle_classes.BrokenError):
        return None


def check(one: Case, data: bytes) -> None:
    """Check that the loop takes and refuses what the oracle does, whatever follows the data."""
    expected = judged(lambda: oracle_classes.decode(data, one.known, one.zero, one.bits))
    for beyond in (0x00, 0xFF):
        assert judged(lambda at=beyond: one.decoded(data, at)) == expected  # type: ignore[misc]


@given(cases(st.integers(1, 300)), st.binary(max_size=60))
@example(case(40, 8, 0, 1.0, 1, False, 1), b"\xff" * 30)
@example(case(40, 1, 1, 1.0, 64, True, 1), b"\xff" * 8)
@example(case(40, 8, 255, 1.0, 1, False, 1), b"\xff" * 7 + b"\xfe" + b"\xff" * 20)
@example(case(5, 8, 0, 1.0, 1, False, 1), b"")
def test_bytes_of_any_kind_are_refused_or_are_codes(one: Case, data: bytes) -> None:
    check(one, data)


@given(cases(st.integers(1, 600)), st.data())
def test_damaged_bytes_are_refused_or_are_codes(one: Case, data: st.DataObject) -> None:
    whole = bytearray(one.encoded() or b"")
    kind = data.draw(st.sampled_from(["cut", "longer", "flipped"]))
    if kind == "cut":
        whole = whole[: data.draw(st.integers(0, len(whole)))]
    elif kind == "longer":
        whole += data.draw(st.binary(min_size=1, max_size=12))
    elif whole:
        at = data.draw(st.integers(0, 8 * len(whole) - 1))
        whole[at // 8] ^= 1 << at % 8
    check(one, bytes(whole))


@given(cases(), st.integers(9, 20))
@settings(max_examples=10)
def test_nine_bytes_too_many_are_never_taken(one: Case, more: int) -> None:
    """Of 0, which change no code."""
    whole = one.encoded()
    assert whole is not None
    assert judged(lambda: one.decoded(whole + bytes(more))) is None


@pytest.mark.parametrize(("zero", "bits"), [(0, 0), (0, 9), (0, -1), (-1, 4), (16, 4), (2**40, 8)])
def test_codes_that_cannot_be_are_refused(zero: int, bits: int) -> None:
    codes, classes = np.full(9, GUARD, np.uint8), np.zeros(9, np.uint8)
    with pytest.raises(ValueError, match="out of range"):
        kernels.decode_given(np.zeros(4, np.uint8), classes, zero, bits, codes)
    assert (codes == GUARD).all()


def test_as_many_classes_as_codes_are_taken() -> None:
    three, four = np.zeros(3, np.uint8), np.zeros(4, np.uint8)
    with pytest.raises(ValueError, match="as many"):
        kernels.encode_given(three, four, 0, np.zeros(9, np.uint8))
    with pytest.raises(ValueError, match="as many"):
        kernels.decode_given(np.zeros(9, np.uint8), four, 0, 4, three)
