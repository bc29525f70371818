"""The trained model as a safetensors file."""

import json
from pathlib import Path

from fedaq.model import ModelSpec
from fedaq.quantizer import Floats

_ALIGNMENT = 8


def write_weights(path: Path, spec: ModelSpec, flat: Floats) -> None:
    """Write a model in the safetensors format, straight from its flat array.

    The library of that name would copy the model first, and hold up all other threads
    while it does.
    """
    entries = {
        tensor.name: {
            "dtype": "F32",
            "shape": tensor.shape,
            "data_offsets": (4 * part.start, 4 * part.stop),
        }
        for tensor, part in zip(spec.tensors, spec.slices, strict=True)
    }
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        flat.astype("<f4", copy=False).tofile(file)
