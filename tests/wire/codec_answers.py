"""Check the codec alone on a processor where the rest of the product is not installed.

    python tests/wire/codec_answers.py

Needs numpy, no PyTorch. Codes the seeds of seeded_vectors.json, decodes vectors.json, and prints a
digest of what every loop makes of the same values, which must be the same on every processor. Does
so with the loops of each level that the processor has.
"""

import json
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from fedaq.codec import given, kernels, quantizer
from fedaq.codec.quantizer import Floats, Grid, Key, Range, derive_key, packed_bytes, range_grid

HERE = Path(__file__).parent
SHORT, LONG = 21, 20_011


def ramp(elements: int) -> Floats:
    """Return the values of seeded_vectors.py."""
    index = np.arange(elements, dtype=np.int64)
    return ((index * 7919 % 1000) / 500 - 1).astype(np.float32)


def coded(values: Floats, grid: Grid, key: Key, *, nearest: bool = False) -> bytes:
    out = np.empty(packed_bytes(values.size, grid.bits), np.uint8)
    quantizer.quantize(values, grid, key, first=0, out=out, nearest=nearest)
    return out.tobytes()


def check_seeds() -> int:
    """Compare the bytes that seeds give with those on file; return how many there are."""
    vectors: list[dict[str, Any]] = json.loads((HERE / "seeded_vectors.json").read_text())
    for vector in vectors:
        key = derive_key(vector["seed"], *vector["path"], 0)
        short, long = (
            coded(values, range_grid(quantizer.value_range(values), vector["bits"]), key)
            for values in (ramp(SHORT), ramp(LONG))
        )
        assert short.hex() == vector["bytes"], vector
        assert blake2b(long, digest_size=16).hexdigest() == vector["blake2b_of_long"], vector
    return len(vectors)


def check_values() -> int:
    """Compare the values of codes with those on file; return how many vectors there are."""
    vectors: list[dict[str, Any]] = json.loads((HERE / "vectors.json").read_text())
    quantized = [vector for vector in vectors if vector["bits"] <= quantizer.MAX_BITS]
    for vector in quantized:
        lo, hi = (_float(vector[end]) for end in ("lo", "hi"))
        out = np.empty(len(vector["values"]), np.float32)
        data = np.frombuffer(bytes.fromhex(vector["bytes"]), np.uint8)
        quantizer.dequantize(data, range_grid(Range(lo, hi), vector["bits"]), out)
        assert out.tolist() == [_float(value) for value in vector["values"]], vector
    return len(quantized)


def _float(pattern: str) -> float:
    return float(np.frombuffer(bytes.fromhex(pattern), ">f4")[0])


def digest_of_everything() -> str:
    """Return a digest of what every loop makes of the same values at every width."""
    values = ramp(LONG) * np.float32(0.013)
    statistics = kernels.statistics(values)
    digest = blake2b(repr(statistics).encode(), digest_size=16)
    for bits in range(1, 17):
        grid = range_grid(Range(statistics.lo, statistics.hi), bits)
        for nearest in (False, True):
            data = np.frombuffer(coded(values, grid, Key(bits, 1), nearest=nearest), np.uint8)
            decoded = np.empty_like(values)
            quantizer.dequantize(data, grid, decoded)
            total = np.zeros(values.size, np.int64)
            kernels.unpack_accumulate(data, bits, -12345, 2**55 // 2**bits // 3, 17, 1, total)
            kernels.unpack_accumulate(data, bits, 54321, 2**50 // 2**bits, 11, -1, total)
            kernels.accumulate_raw(decoded, 2.0**30 * 7, 1, total)
            kernels.add_scaled(values, total, 2.0**-37 / 7, decoded)
            wide = np.empty(2 * values.size, np.uint8)
            kernels.repack(data, bits, 16, values.size, wide)
            for array in (data, total, decoded, wide):
                digest.update(array.tobytes())
    return digest.hexdigest()


def digest_of_classes() -> str:
    """Return a digest of classes, of pasts, and of codes by classes and back, at every width."""
    digest = blake2b(digest_size=16)
    past, classes = np.zeros(LONG, np.uint8), np.empty(LONG, np.uint8)
    # Mostly near 0, by products that are rounded alike everywhere.
    cubed = ramp(LONG) * ramp(LONG) * ramp(LONG)
    values = cubed * cubed * cubed
    for bits in range(1, quantizer.MAX_BITS + 1):
        zero = 2**bits // 3
        codes = np.clip(np.rint(values * np.float32(2**bits)) + zero, 0, 2**bits - 1)
        kernels.dither_classes(2**32 - 99, bits, bits, 1, classes)
        digest.update(classes.tobytes())
        if bits <= given.MOST_BITS:
            _update_with_coded(digest, codes.astype(np.uint8), classes, zero, bits)
            kernels.past_classes(past, classes)
            _update_with_coded(digest, codes.astype(np.uint8), classes, zero, bits)
        words = codes.astype("<u2").view(np.uint8)
        kernels.remember(past, words, bits, zero, width=16)
        digest.update(past.tobytes())
    return digest.hexdigest()


def _update_with_coded(
    digest: blake2b, codes: given.Bytes, classes: given.Bytes, zero: int, bits: int
) -> None:
    out, back = np.empty(4 * codes.size, np.uint8), np.empty_like(codes)
    length = kernels.encode_given(codes, classes, zero, out)
    assert length is not None
    kernels.decode_given(out[:length], classes, zero, bits, back)
    assert np.array_equal(back, codes)
    digest.update(out[:length].tobytes())


def main() -> None:
    for level in kernels.levels():
        loops = kernels.at_level(level)
        kernels._loops = lambda loops=loops: loops  # type: ignore[assignment]
        print(
            f"{level}: {check_seeds()} seeds give the bytes on file, {check_values()} vectors the "
            f"values; all loops: {digest_of_everything()}; classes: {digest_of_classes()}"
        )


if __name__ == "__main__":
    main()
