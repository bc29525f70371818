"""Known answers of the stochastic quantizer: a seed and the bytes it gives.

They pin that a seed gives the same bytes on every machine and in every release.
Only a deliberate change of the random numbers writes them anew:

    python tests/wire/seeded_vectors.py
"""

import json
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

import packed_codes
from fedaq.codec import payload, quantizer
from fedaq.codec.model import ModelSpec, TensorSpec

FILE = Path(__file__).with_suffix(".json")
SHORT, LONG = 21, 20_011


def coded(elements: int, seed: int, path: tuple[str | int, ...], bits: int) -> memoryview:
    """Code the values ``(i * 7919 % 1000) / 500 - 1``."""
    index = np.arange(elements, dtype=np.int64)
    values = ((index * 7919 % 1000) / 500 - 1).astype(np.float32)
    spec = ModelSpec((TensorSpec("t", (elements,)),))
    header = payload.plan_payload(spec, (bits,), [quantizer.value_range(values)])
    keys = payload.transfer_keys(spec, seed, *path)
    return packed_codes.encode_chunk(header, values.__getitem__, keys, 0, header.code_bytes)


def vector(seed: int, path: tuple[str | int, ...], bits: int) -> dict[str, Any]:
    """Return the bytes of a short tensor and a digest of those of a long one."""
    digest = blake2b(coded(LONG, seed, path, bits), digest_size=16).hexdigest()
    return {
        "seed": seed,
        "path": list(path),
        "bits": bits,
        "bytes": coded(SHORT, seed, path, bits).hex(),
        "blake2b_of_long": digest,
    }


def vectors() -> list[dict[str, Any]]:
    """Return a vector for every width, and more for other seeds and transfers."""
    paths: list[tuple[str | int, ...]] = [("downlink", 2), ("uplink", "client-2", 1)]
    return [
        *(vector(1, ("uplink", "client-1", 1), bits) for bits in range(1, 17)),
        *(vector(seed, path, 3) for seed in (0, 2**63 - 1) for path in paths),
    ]


if __name__ == "__main__":
    lines = ",\n".join(f" {json.dumps(one)}" for one in vectors())
    FILE.write_text(f"[\n{lines}\n]\n")
