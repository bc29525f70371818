"""Known answers of whole archives: their bytes, and those of the tensors that they stand for.

They pin what every release must decode. Written anew only to add one:

    PYTHONPATH=tests python -m wire.archive_vectors
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedaq.codec import encode
from wire.archives import rebuilt

FILE = Path(__file__).with_suffix(".json")


def tensors() -> dict[str, Any]:
    """Return tensors of every type, of numpy and torch, the same on every machine."""
    index = np.arange(1200)
    root = ((index * 7919 % 1000 - 500) / 1000).astype(np.float32)
    values = root * root * root
    found: dict[str, Any] = {"weights": torch.from_numpy(values).reshape(30, 40)}
    for dtype in ("float16", "bfloat16", "float64", "complex64", "complex128"):
        found[f"torch {dtype}"] = torch.from_numpy(values[:21]).to(getattr(torch, dtype))
    for dtype in ("float16", "float32", "float64", "complex64", "complex128"):
        found[f"numpy {dtype}"] = values[:21].reshape(3, 7).astype(dtype)
    for sign in ("", "u"):
        for bits in (8, 16, 32, 64):
            found[f"{sign}int{bits}"] = (index[:9] * 2 ** (bits - 5)).astype(f"{sign}int{bits}")
    for dtype in ("float8_e4m3fn", "float8_e5m2"):
        found[dtype] = torch.from_numpy(values[:5]).to(getattr(torch, dtype))
    found["mask"] = torch.from_numpy(values[:11] > 0)
    found["scalar"] = torch.tensor(0.25)
    found["count"] = torch.tensor(7)
    found["zeros"] = np.zeros((2, 5), np.float32)
    found["empty"] = np.zeros((0, 3), np.float32)
    return found


def vectors() -> list[dict[str, Any]]:
    """Return every vector."""
    odd = np.array([np.nan, np.inf, -0.0, 1e-45, 3.4e38], np.float32)
    archives = {
        "every type, exactly": encode(tensors()),
        "every type, a step": encode(tensors(), step=0.01),
        "every type, a step at random": encode(tensors(), step=0.05, seed=7),
        "every type, a grid": encode(tensors(), grid_bits=5, seed=7),
        "every type, a wide grid": encode(tensors(), grid_bits=11),
        "one array": encode(odd),
        "one tensor": encode(tensors()["weights"], step=0.3, seed=1),
        "no tensors": encode({}),
    }
    return [
        {
            "name": name,
            "archive": archive.hex(),
            "tensors": {name: data.hex() for name, data in rebuilt(archive)[1]},
        }
        for name, archive in archives.items()
    ]


if __name__ == "__main__":
    lines = ",\n".join(f" {json.dumps(one)}" for one in vectors())
    FILE.write_text(f"[\n{lines}\n]\n")
