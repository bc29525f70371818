"""What it is worth that both ends know something of codes: captured payloads, coded anew.

    fedaq run --engine local --set capture=true --out runs/captured
    python benchmarks/contexts.py runs/captured

Of every update and every difference, the bytes that its codes take, headers left out: with the
coder that knows nothing (zstd's Huffman codes, `fedaq.codec.entropy`), with the range coder but one
class, and with classes of more and more that both ends know. Each is really coded, and read back.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from fedaq.cli.inspection import Captured, read_payload
from fedaq.codec import coding, entropy, kernels, quantizer
from fedaq.codec.quantizer import Key

Codes = NDArray[np.int64]
Bytes = NDArray[np.uint8]
TURNED = 128
# Of the last differences, how many are remembered here.
DEPTH = 3


def payloads(folder: Path, sender: str) -> Iterator[Captured]:
    """Yield what a sender sent, round by round."""
    for path in sorted((folder / "payloads").glob(f"round-*-{sender}.payload")):
        yield read_payload(path, path.read_bytes())


def codes_of(captured: Captured) -> dict[int, Codes]:
    """Return the distance of each code from the one that stands for 0, by tensor with steps."""
    values = captured.values()
    return {
        number: np.rint(values[part] / code.step).astype(np.int64)
        for number, (code, part) in enumerate(
            zip(captured.header.codes, captured.header.spec.slices, strict=True)
        )
        if code.step and code.bits <= 8
    }


def by_classes(codes: Codes, bits: int, zero: int, classes: Codes) -> int:
    """Return the bytes of codes by classes, and check that they are read back."""
    symbols, known = (codes + zero).astype(np.uint8), classes.astype(np.uint8)
    out = np.empty(2 * codes.size + 64, np.uint8)
    length = kernels.encode_given(symbols, known, zero, out)
    assert length is not None
    back = np.empty_like(symbols)
    kernels.decode_given(out[:length].copy(), known, zero, bits, back)
    assert np.array_equal(back, symbols)
    return length


def as_bytes(codes: Codes, bits: int, zero: int) -> int:
    """Return the bytes of codes that nothing is known of."""
    symbols = (codes + zero).astype(np.uint8)
    width = coding.aligned(bits)
    out = np.empty(quantizer.packed_bytes(codes.size, width), np.uint8)
    kernels.repack(symbols, 8, width, codes.size, out)
    return len(entropy.compress(out))


def dither_classes(key: Key, bits: int, size: int) -> Codes:
    found = np.empty(size, np.uint8)
    kernels.dither_classes(0, bits, key.word0, key.word1, found)
    return found.astype(np.int64)


def neighbours(codes: Codes, shape: tuple[int, ...]) -> Codes:
    """Return how many of the codes before a value and above it are not 0, in a matrix of rows."""
    rows = np.abs(np.sign(codes)).reshape(shape[0], -1) if len(shape) > 1 else codes[None] != 0
    found = np.zeros(rows.shape, np.int64)
    found[:, 1:] += rows[:, :-1]
    found[1:] += rows[:-1]
    return found.ravel()


def updates(folder: Path, client: str) -> dict[str, int]:
    """Return the bytes of a client's updates, by what is known."""
    total: dict[str, int] = defaultdict(int)
    for captured in payloads(folder, client):
        header = captured.header
        for number, codes in codes_of(captured).items():
            code, word = header.codes[number], captured.message.keys[number]
            classes = dither_classes(Key.numbered(word), code.bits, codes.size)
            near = neighbours(codes, header.spec.tensors[number].shape)
            ways = {
                "nothing": np.zeros_like(codes),
                "dither, by octave": classes & TURNED | (classes & 31) >> 1,
                "dither, by half octave": classes,
                "dither and neighbours": classes & TURNED | (classes & 31) + 19 * near,
            }
            total["older coder"] += as_bytes(codes, code.bits, code.zero)
            for way, known in ways.items():
                total[way] += by_classes(codes, code.bits, code.zero, known)
    return total


def past_classes(last: list[Codes]) -> Codes:
    """Return classes by the last differences, the newest first; signs are as one of them has it."""
    signs = [np.sign(each) for each in last]
    sign = np.zeros_like(last[0])
    for each in signs:
        sign = np.where(sign == 0, each, sign)
    classes = np.minimum(np.abs(last[0]), 2)
    for each in signs[1:]:
        classes = 3 * classes + (each * sign) % 3
    found: Codes = classes + TURNED * (sign < 0)
    return found


def differences(folder: Path) -> dict[str, int]:
    """Return the bytes of what went down, by what is known."""
    total: dict[str, int] = defaultdict(int)
    last: dict[int, list[Codes]] = {}
    for captured in payloads(folder, "server"):
        header, found = captured.header, codes_of(captured)
        for number, elements in enumerate(header.spec.elements):
            nothing = np.zeros(elements, np.int64)
            before = last.setdefault(number, [nothing] * DEPTH)
            codes, code = found.get(number, nothing), header.codes[number]
            if number in found:
                near = neighbours(codes, header.spec.tensors[number].shape)
                total["older coder"] += as_bytes(codes, code.bits, code.zero)
                ways = {"nothing": nothing, "neighbours": near}
                for depth in range(1, DEPTH + 1):
                    ways[f"the last {depth}"] = past_classes(before[:depth])
                for way, known in ways.items():
                    total[way] += by_classes(codes, code.bits, code.zero, known)
            if header.code_bytes:
                last[number] = [codes, *before[:-1]]
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a run with captured payloads")
    parser.add_argument("--client", default="client-1", help="whose updates [client-1]")
    arguments = parser.parse_args()
    console = Console()
    for title, total in (
        (f"updates of {arguments.client}", updates(arguments.run, arguments.client)),
        ("differences", differences(arguments.run)),
    ):
        table = Table("known", "bytes", "share", title=title)
        for way, size in total.items():
            table.add_row(way, f"{size:,}", f"{size / max(total['older coder'], 1):.3f}")
        console.print(table)


if __name__ == "__main__":
    main()
