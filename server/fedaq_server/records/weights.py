"""A model as a safetensors file."""

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from fedaq.codec.model import ModelSpec, class_difference
from fedaq.codec.quantizer import Floats
from fedaq.errors import UserError, refused

_ALIGNMENT = 8
_CLASSES = "classes"
# Digest of the weights that are not in the file, as hexadecimal digits.
_FROZEN = "frozen"
Names = Mapping[str, str]
UNCHANGED: Names = MappingProxyType({})


def write_weights(path: Path, spec: ModelSpec, flat: Floats) -> None:
    """Write a model in the safetensors format, straight from its flat array.

    The library of that name would copy the model first, and hold up all other threads
    while it does.
    """
    entries: dict[str, Any] = {
        tensor.name: {
            "dtype": "F32",
            "shape": tensor.shape,
            "data_offsets": (4 * part.start, 4 * part.stop),
        }
        for tensor, part in spec.named
    }
    # The format has room for text only.
    stated = {
        **({_CLASSES: json.dumps(spec.classes)} if spec.classes else {}),
        **({_FROZEN: spec.frozen.hex()} if spec.frozen else {}),
    }
    if stated:
        entries["__metadata__"] = stated
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.write(flat.astype("<f4", copy=False).data)  # tofile would not say why it failed


def read_weights(
    path: Path,
    spec: ModelSpec,
    out: Floats,
    renamed: Mapping[str, str] = UNCHANGED,
    kept: Collection[str] = (),
) -> None:
    """Read a model into a flat array.

    Parameters
    ----------
    path : Path
    spec : ModelSpec
        What the file must hold, and nothing else.
    out : float32, shape (parameters,)
    renamed : mapping of str to str
        Names that an older file may have, to those of `spec`.
    kept : collection of str
        Tensors that never travel, which the file may have, too. If it has nothing else, nothing
        is read.

    Raises
    ------
    UserError
        If it is missing, no safetensors file, or another model's.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            _check_stated(path, spec, file.metadata() or {})
            all_names = {renamed.get(name, name): name for name in file.keys()}  # noqa: SIM118
            names = {name: there for name, there in all_names.items() if name not in kept}
            if all_names and not names:
                return
            missing = [tensor.name for tensor, _ in spec.named if tensor.name not in names]
            if missing or len(names) != len(spec.named):
                raise UserError(
                    f"{path}: holds {len(names)} tensors, the task's model has "
                    f"{len(spec.named)}" + (f"; {missing[0]} is missing" if missing else "")
                )
            for tensor, part in spec.named:
                values = file.get_tensor(names[tensor.name])
                if values.shape != tensor.shape or values.dtype != out.dtype:
                    shape = "x".join(map(str, values.shape)) or "scalar"
                    raise UserError(
                        f"{path}: {tensor.name} is {values.dtype} {shape}; "
                        f"the task's model has float32 {tensor}"
                    )
                out[part] = values.ravel()
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not a model that can be read: {error}") from None


def file_digest(path: Path) -> str:
    """Return what tells a file from every other one."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()


def refuse_if_damaged(path: Path, digest: str | None) -> None:
    """Refuse a file other than the one that was written; earlier versions kept no digest.

    Raises
    ------
    UserError
        If it is another one, or cannot be read.
    """
    try:
        damaged = digest is not None and file_digest(path) != digest
    except OSError as error:
        raise UserError(f"{path}: not a model that can be read: {refused(error)}") from None
    if damaged:
        raise UserError(
            f"{path}: damaged, it is not what was written; put back a copy of the folder, or begin "
            "another run"
        )


def _check_stated(path: Path, spec: ModelSpec, metadata: Mapping[str, str]) -> None:
    """Refuse a file that states other classes or frozen weights; files from elsewhere do not."""
    if metadata.get(_FROZEN, spec.frozen.hex()) != spec.frozen.hex():
        raise UserError(
            f"{path}: was trained beside other frozen weights than the task's model has here; "
            "they must come from the same seed and version of torch, or the same file by --from"
        )
    try:
        stated = json.loads(metadata.get(_CLASSES, "null"))
    except ValueError:
        stated = None
    if isinstance(stated, list) and (there := tuple(map(str, stated))) != spec.classes:
        raise UserError(
            f"{path}: its classes are not the task's: {class_difference(spec.classes, there)} "
            "(the task here, the file there)"
        )


def refuse_if_not_finite(path: Path, spec: ModelSpec, flat: Floats) -> None:
    """Refuse a start that has NaN or infinity.

    Raises
    ------
    UserError
        If it has.
    """
    for tensor, values in zip(spec.tensors, spec.split(flat), strict=True):
        if not np.isfinite(values).all():
            raise UserError(f"--from {path}: {tensor.name} has NaN or infinity")


def base_of(given: Path | None, kept: Path) -> Path | None:
    """Return the file given as the start, or None if it has gone since the run began with it.

    What a run keeps has no frozen weights: they can be as large as they like.
    """
    has_gone = given is not None and kept.exists() and not given.exists()
    return None if has_gone else given
