"""Size and speed of the entropy coder for codes of every width.

    python benchmarks/entropy_coder.py --out entropy.json

Normal and Laplace values are cut at a reach, quantized with the step at which their codes take
a width, and the chunks of 128 KiB coded and expanded on one thread. Sizes are relative to the
entropy of the codes, speeds are million values/s of the fastest of several repeats, those of
aligning the codes to bytes included. A dash stands where coding would not be shorter.

A second table has codes of which most are 0, coded by classes as those of an update, next to the
same codes as bytes that nothing is known of.
"""

import argparse
import json
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from math import inf
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from fedaq.codec import coding, payload, quantizer
from fedaq.codec.chunks import Chunk
from fedaq.codec.given import Dither
from fedaq.codec.model import ModelSpec, TensorSpec
from fedaq.codec.payload import Payload
from fedaq.codec.quantizer import Floats, Key, Range

VALUES = 2**20
CHUNK_BYTES = 2**17
REPEATS = 5
WIDTHS = (*range(1, 9), 10, 12, 16)
# Half of the range in standard deviations.
REACHES = (3.0, 10.0, 30.0, 100.0)
# Of codes by classes: their bits, and mean magnitudes of values in steps.
KNOWN_BITS = 4
MAGNITUDES = (0.01, 0.03, 0.1, 0.3, 1.0)
Codes = NDArray[np.int64]
SPEC = ModelSpec((TensorSpec("values", (VALUES,)),))


@dataclass(frozen=True)
class Row:
    """Sizes in bits a value and speeds of one width, distribution and reach."""

    bits: int
    distribution: str
    reach: float
    entropy: float
    coded: float
    compress_m_s: float
    expand_m_s: float


@dataclass(frozen=True)
class KnownRow:
    """Sizes in bits a value and speeds of codes by classes and as bytes."""

    magnitude: float
    zeros: float
    entropy: float
    given_classes: float
    by_classes: float
    as_bytes: float
    by_classes_m_s: float
    as_bytes_m_s: float
    from_classes_m_s: float
    from_bytes_m_s: float


def header_for(values: Floats, bits: int, reach: float) -> Payload:
    """Return the payload whose codes take so many bits: around zero, or two ends for 1 bit."""
    if bits == 1:
        return payload.plan_payload(SPEC, (1,), [Range(-reach, reach)])
    return payload.plan_payload(SPEC, (bits,), [Range(-reach, reach)], (2 * reach / (2**bits - 2),))


def coded_chunk(
    header: Payload,
    values: Floats,
    keys: tuple[Key, ...],
    span: tuple[int, int],
    *,
    squeeze: bool,
    known: Dither | None = None,
) -> Chunk:
    chunk, _ = coding.encode(
        header, values.__getitem__, keys, *span, 1, squeeze=squeeze, known=known
    )
    return chunk


def codes_of(header: Payload, packed: list[Chunk]) -> Codes:
    """Return the codes of chunks that are not coded."""
    codes = np.empty(VALUES, np.float32)
    grid = quantizer.Grid(header.bits[0], 0.0, 1.0)
    quantizer.dequantize(
        np.frombuffer(b"".join(chunk.data for chunk in packed), np.uint8), grid, codes
    )
    return codes.astype(np.int64)


def entropy_bits(codes: Codes) -> float:
    """Return the entropy of codes."""
    counts = np.bincount(codes)
    shares = counts[counts > 0] / codes.size
    return float(-shares @ np.log2(shares))


def bits_of(chunks: list[Chunk]) -> float:
    """Return what chunks of all values take, in bits a value."""
    return 8 * sum(chunk.cost_bytes for chunk in chunks) / VALUES


def seconds(work: Callable[[], object]) -> float:
    best = inf
    for _ in range(REPEATS):
        start = perf_counter()
        work()
        best = min(best, perf_counter() - start)
    return best


def speed(work: Callable[[], object]) -> float:
    """Return million values/s of what takes all of them."""
    return VALUES / seconds(work) / 1e6


def measure(values: Floats, distribution: str, bits: int, reach: float) -> Row:
    header = header_for(values, bits, reach)
    keys = payload.transfer_keys(SPEC, 1, "benchmark")
    cut = np.clip(values, -reach, reach)
    spans = list(header.chunks(CHUNK_BYTES))
    packed = [coded_chunk(header, cut, keys, span, squeeze=False) for span in spans]

    def compress() -> list[Chunk]:
        return [coded_chunk(header, cut, keys, span, squeeze=True) for span in spans]

    coded = compress()
    expanded, sent = np.empty_like(cut), np.empty_like(cut)

    def expand(chunks: list[Chunk], out: Floats) -> None:
        for chunk in chunks:
            coding.decode_into(header, chunk, out)

    expand(coded, expanded)
    expand(packed, sent)
    if not np.array_equal(expanded, sent):
        raise SystemExit(f"{bits}-bit codes come back as others")
    return Row(
        header.bits[0],
        distribution,
        reach,
        entropy_bits(codes_of(header, packed)),
        bits_of(coded),
        speed(compress),
        speed(partial(expand, coded, expanded)),
    )


def measure_known(values: Floats, magnitude: float) -> KnownRow:
    """Measure codes of values whose mean magnitude is so many steps."""
    zero = 2 ** (KNOWN_BITS - 1)
    header = Payload(SPEC, (payload.TensorCode(KNOWN_BITS, step=1.0, zero=zero),))
    keys = payload.transfer_keys(SPEC, 1, "uplink", "benchmark", 1)
    known, own = Dither(keys.__getitem__), values * np.float32(magnitude)
    spans = list(header.chunks(CHUNK_BYTES))
    packed = [coded_chunk(header, own, keys, span, squeeze=False) for span in spans]
    codes = codes_of(header, packed)
    [whole] = header.pieces(0, header.code_bytes)
    classes = known.classes(header, whole)

    def compress(what: Dither | None) -> list[Chunk]:
        return [coded_chunk(header, own, keys, span, squeeze=True, known=what) for span in spans]

    def expand(chunks: list[Chunk], what: Dither | None, out: Floats) -> Floats:
        for chunk in chunks:
            coding.decode_into(header, chunk, out, known=what)
        return out

    coded, plain = compress(known), compress(None)
    out = np.empty_like(own)
    if not np.array_equal(expand(coded, known, out).copy(), expand(packed, None, out)):
        raise SystemExit("codes by classes come back as others")
    given_classes = sum(
        np.count_nonzero(mine) * entropy_bits(codes[mine])
        for mine in (classes == each for each in np.unique(classes))
    )
    return KnownRow(
        magnitude,
        float(np.mean(codes == zero)),
        entropy_bits(codes),
        given_classes / VALUES,
        bits_of(coded),
        bits_of(plain),
        speed(partial(compress, known)),
        speed(partial(compress, None)),
        speed(partial(expand, coded, known, out)),
        speed(partial(expand, plain, None, out)),
    )


def known_table(rows: list[KnownRow]) -> Table:
    result = Table(title=f"The same number of codes of {KNOWN_BITS} bits, by classes and as bytes")
    for heading in (
        "magnitude in steps",
        "zeros",
        "entropy",
        "given the classes",
        "by classes",
        "as bytes",
        "M/s coded by classes",
        "as bytes",
        "M/s decoded by classes",
        "as bytes",
    ):
        result.add_column(heading, justify="right")
    for row in rows:
        sizes = (row.entropy, row.given_classes, row.by_classes, row.as_bytes)
        speeds = (
            row.by_classes_m_s, row.as_bytes_m_s, row.from_classes_m_s, row.from_bytes_m_s
        )  # fmt: skip
        result.add_row(
            f"{row.magnitude:g}",
            f"{row.zeros:.1%}",
            *(f"{size:.3f}" for size in sizes),
            *(f"{speed:,.0f}" for speed in speeds),
        )
    return result


def table(rows: list[Row]) -> Table:
    result = Table(title=f"{VALUES:,} values to chunks of at most {CHUNK_BYTES:,} bytes, and back")
    for heading in (
        "bits",
        "values",
        "reach",
        "entropy",
        "coded",
        "ratio",
        "M/s quantized and coded",
        "M/s decoded",
    ):
        result.add_column(heading, justify="right")
    for row in rows:
        is_coded = row.coded < row.bits
        result.add_row(
            str(row.bits),
            row.distribution,
            f"{row.reach:g} σ",
            f"{row.entropy:.3f}",
            f"{row.coded:.3f}" if is_coded else "-",
            f"{row.coded / row.entropy:.3f}" if is_coded else "-",
            f"{row.compress_m_s:,.0f}",
            f"{row.expand_m_s:,.0f}" if is_coded else "-",
        )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Size and speed of the entropy coder.")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON")
    out: Path | None = parser.parse_args().out
    rng = np.random.default_rng(1)
    samples = {
        "normal": rng.standard_normal(VALUES, dtype=np.float32),
        "Laplace": (rng.laplace(size=VALUES) / 2**0.5).astype(np.float32),
    }
    rows = [
        measure(values, distribution, bits, reach)
        for bits in WIDTHS
        for distribution, values in samples.items()
        for reach in REACHES
    ]
    laplace = samples["Laplace"] * np.float32(2**0.5)
    known_rows = [measure_known(laplace, magnitude) for magnitude in MAGNITUDES]
    Console().print(table(rows))
    Console().print(known_table(known_rows))
    if out is not None:
        report = {
            "machine": platform.machine(),
            "numpy": np.__version__,
            "values": VALUES,
            "chunk_bytes": CHUNK_BYTES,
            "rows": [asdict(row) for row in rows],
            "known_rows": [asdict(row) for row in known_rows],
        }
        out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
