"""Codes by classes a second time, from docs/reference/wire-format.md, not from the product's code.

All numbers are Python's own, of any size: what is written is one number, and nothing is carried.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

# 0 to 63, and whether the sign is turned.
Class = tuple[int, bool]

FIRST_BLOCK, LARGEST_BLOCK = 32, 4096
KNOWN_SIZES = 15
FIRST_ODDS = (
    5986, 9849, 14006, 17965, 21423, 24263, 26495, 28196, 29465, 30396, 31073, 31560, 31909, 32158,
    32336,
)  # fmt: skip


# ---- Classes -------------------------------------------------------------------


def words_of(seed: int, name: str, round_number: int, tensor: int) -> tuple[int, int]:
    """Return the two words of the random numbers of one tensor of an update."""
    text = f"({seed}, 'uplink', {name!r}, {round_number}, {tensor})"
    first, second = struct.unpack("<II", blake2b(text.encode(), digest_size=8).digest())
    return first, second


def dither_class(i: int, bits: int, word0: int, word1: int) -> Class:
    """Return the class of value i of a tensor of an update."""
    x = (i * 0x9E3779B9 + word0) % 2**32 ^ word1
    x = (x ^ x >> 16) * 0x7FEB352D % 2**32
    x = (x ^ x >> 15) * 0x846CA68B % 2**32
    x = x ^ x >> 16
    u = (x << bits + 1) % 2**32
    turned = u < 2**31
    t = (u if turned else 2**32 - 1 - u) >> 7
    (bit_pattern,) = struct.unpack("<I", struct.pack("<f", t))
    return min(301 - (bit_pattern >> 22), 18), turned


def past_class(past: int) -> Class:
    """Return the class that a past gives a value of a difference."""
    a, b = past % 15 % 5, past % 15 // 5
    side = {0: 0, 1: 1, 2: 1, 3: 2, 4: 2}[a]
    likeness = 0 if b == 0 else 1 if a == 0 or b == side else 2
    return {0: 0, 1: 16, 3: 16, 2: 32, 4: 32}[a] + likeness, (b if a == 0 else side) == 2


def moved_on(past: int, distance: int) -> int:
    """Return the past after a difference with a code so far from `zero`."""
    b = {0: 0, 1: 1, 2: 1, 3: 2, 4: 2}[past % 15 % 5]
    if distance == 0:
        return 5 * b
    return 5 * b + (1 if distance > 0 else 3) + (abs(distance) > 1)


# ---- Questions and their odds --------------------------------------------------

# What is asked, of which class or group of classes, and for sizes the number; digits have none.
Question = tuple[str, int, int]
DIGIT: Question = ("digit", 0, 0)


@dataclass
class Odds:
    """Of the answer yes, in 2^16."""

    now: int
    yes: int
    all: int = 4

    @classmethod
    def first(cls, question: Question) -> "Odds":
        kind, which, _ = question
        now = {"minus": 2**12, "more": 2**13, "digit": 2**15}.get(kind)
        if now is None:
            now = FIRST_ODDS[min(which, len(FIRST_ODDS) - 1)]
        return cls(now, 4 * now)

    def learn(self) -> None:
        """Make new odds at the end of a block."""
        self.now = min(max(self.yes // self.all, 1), 2**16 - 1)
        if self.all > 2**16:
            self.yes, self.all = self.yes // 2, self.all // 2


class Learned:
    """The odds of all questions; those of one that was never asked are the first."""

    def __init__(self) -> None:
        self._odds: dict[Question, Odds] = {}

    def of(self, question: Question) -> int:
        return self._odds.setdefault(question, Odds.first(question)).now

    def count(self, question: Question, *, yes: bool) -> None:
        if question != DIGIT:
            self._odds[question].all += 1
            self._odds[question].yes += 2**16 * yes

    def end_block(self) -> None:
        for odds in self._odds.values():
            odds.learn()


def block_ends(count: int) -> set[int]:
    """Return the numbers of values after which odds are made anew."""
    ends, size, at = set(), FIRST_BLOCK, FIRST_BLOCK
    while at <= count:
        ends.add(at)
        size = min(2 * size, LARGEST_BLOCK)
        at += size
    return ends


def answers(distance: int, known: Class) -> Iterator[tuple[Question, bool]]:
    """Yield what is asked of a value whose code is so far from `zero`, and the answers."""
    cls, turned = known
    yield ("other", cls, 0), distance != 0
    if distance == 0:
        return
    yield ("minus", cls, 0), (distance < 0) != turned
    m = abs(distance)
    for number in range(1, KNOWN_SIZES + 1):
        yield ("more", cls >> 4, number), m > number
        if m <= number:
            return
    digits = f"{m - KNOWN_SIZES:b}"[1:]
    for _ in digits:
        yield DIGIT, True
    yield DIGIT, False
    for digit in digits:
        yield DIGIT, digit == "1"


# ---- The range coder -----------------------------------------------------------


def encode(codes: Sequence[int], classes: Sequence[Class], zero: int) -> bytes:
    """Return what codes are written to: a block of kind 4 without its first byte."""
    learned, ends = Learned(), block_ends(len(codes))
    low, span, written = 0, 2**64 - 1, 0
    # Sums of long numbers are slow: what is written already is put aside, and where it ended.
    aside: list[tuple[int, int]] = []
    for number, (code, known) in enumerate(zip(codes, classes, strict=True), 1):
        for question, yes in answers(code - zero, known):
            no = (span >> 16) * (2**16 - learned.of(question))
            low, span = (low + no, span - no) if yes else (low, no)
            if span < 2**32:
                low, span, written = low << 32, span << 32, written + 4
                if written % 1024 == 0:
                    aside.append((low >> 64, written))
                    low %= 2**64
            learned.count(question, yes=yes)
        if number in ends:
            learned.end_block()
    low += sum(part << 64 + 8 * (written - end) for part, end in aside)
    for last in range(9):
        unit = 1 << 8 * (8 - last)
        least = -(-low // unit)
        if least * unit < low + span:
            return least.to_bytes(written + last, "big")
    raise AssertionError


class BrokenError(Exception):
    """What no codes are written to."""


def read_codes(
    data: bytes, classes: Sequence[Class], zero: int, bits: int
) -> Iterator[tuple[int, int]]:
    """Yield codes, and how many bytes have been read with each, beyond the end of `data`, too."""
    learned, ends = Learned(), block_ends(len(classes))
    padded, read = data + bytes(8), 8
    value, span = int.from_bytes(padded[:8], "big"), 2**64 - 1

    def ask(question: Question) -> bool:
        nonlocal padded, read, value, span
        if value >= span:
            raise BrokenError
        no = (span >> 16) * (2**16 - learned.of(question))
        yes = value >= no
        value, span = (value - no, span - no) if yes else (value, no)
        if span < 2**32:
            following = (padded[read : read + 4] + bytes(4))[:4]
            value, span, read = value << 32 | int.from_bytes(following, "big"), span << 32, read + 4
        learned.count(question, yes=yes)
        return yes

    def distance(known: Class) -> int:
        cls, turned = known
        if not ask(("other", cls, 0)):
            return 0
        sign = -1 if ask(("minus", cls, 0)) != turned else 1
        for number in range(1, KNOWN_SIZES + 1):
            if not ask(("more", cls >> 4, number)):
                return sign * number
        length = 0
        while ask(DIGIT):
            length += 1
            if length > bits:
                raise BrokenError
        digits = "".join("1" if ask(DIGIT) else "0" for _ in range(length))
        return sign * (KNOWN_SIZES + int("1" + digits, 2))

    for number, known in enumerate(classes, 1):
        code = zero + distance(known)
        if not 0 <= code < 2**bits:
            raise BrokenError
        if number in ends:
            learned.end_block()
        yield code, read


def decode(data: bytes, classes: Sequence[Class], zero: int, bits: int) -> list[int]:
    """Return codes again: `encode` backwards.

    Raises
    ------
    BrokenError
        If a receiver refuses the block.
    """
    codes, read = [], 8
    for code, read in read_codes(data, classes, zero, bits):  # noqa: B007
        codes.append(code)
    if not read - 8 <= len(data) <= read:
        raise BrokenError
    return codes
