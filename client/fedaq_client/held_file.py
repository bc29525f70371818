"""What a client holds and what it left unsent, on the disk, for a client that is started again.

One file for each name: safetensors, with a digest of all that is in it. It is written before an
update is sent: whatever happens then, nothing of an update is sent twice.
"""

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedaq.codec import model
from fedaq.codec.model import ModelSpec
from fedaq.codec.quantizer import Floats
from fedaq.files import make_folder, replacing

log = logging.getLogger(__name__)

Unsent = dict[int, Floats]
Arrays = dict[str, NDArray[Any]]
# Of a file's metadata, and of the arrays in it.
_FACTS, _MODEL, _PAST = "fedaq", "model", "past"


@dataclass(frozen=True)
class Holding:
    """What a client holds in a round.

    Attributes
    ----------
    run_id : str
    round : int
        The one whose update is about to be sent.
    model : float32, shape (parameters,)
    past : uint8, shape (parameters,)
        What its last differences had (`fedaq.codec.given.Past`).
    before, after : dict of int to float32
        What was unsent when the round began, and what is once its update is sent, by the tensor.
    """

    run_id: str
    round: int
    model: Floats
    past: NDArray[np.uint8]
    before: Unsent
    after: Unsent


class HeldFile:
    """The file of one client.

    Parameters
    ----------
    folder : Path
    name : str
        The client's.
    spec : ModelSpec
    """

    def __init__(self, folder: Path, name: str, spec: ModelSpec) -> None:
        # Names are not made for paths.
        place = blake2b(name.encode(), digest_size=8).hexdigest()
        self.path = folder / f"held-{place}.safetensors"
        self._spec = spec
        signature = model.to_message(spec).SerializeToString(deterministic=True)
        self._signature = blake2b(signature, digest_size=16).hexdigest()

    def read(self) -> Holding | None:
        """Return what is in it; None, and a line in the log, if that cannot be used."""
        if not self.path.exists():
            return None
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, framework="np") as file:
                facts = json.loads((file.metadata() or {})[_FACTS])
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return self._checked(facts, arrays)
        except (OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
            log.warning("%s: cannot be used, begun anew: %s", self.path, error)
            return None

    def write(self, holding: Holding) -> None:
        """Write it, whole or not at all; if that fails, there is none, and a line in the log."""
        from safetensors.numpy import save_file

        arrays = _arrays_of(holding)
        facts = {
            "run": holding.run_id, "round": holding.round, "signature": self._signature,
        }  # fmt: skip
        facts["digest"] = _digest(facts, arrays)
        try:
            make_folder(self.path.parent)
            with replacing(self.path) as partial:
                save_file(arrays, partial, {_FACTS: json.dumps(facts)})
        except OSError as error:
            # What was there is too old: it would have things sent twice.
            self.remove()
            log.warning("%s: cannot be written: %s", self.path, error.strerror or error)

    def remove(self) -> None:
        """Remove it."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _checked(self, facts: dict[str, Any], arrays: Arrays) -> Holding:
        if facts["digest"] != _digest({k: v for k, v in facts.items() if k != "digest"}, arrays):
            raise ValueError("it is damaged")
        if facts["signature"] != self._signature:
            raise ValueError("it is of another model")
        unsent: dict[str, Unsent] = {"before": {}, "after": {}}
        for name in arrays.keys() - {_MODEL, _PAST}:
            when, _, tensor = name.partition(".")
            unsent[when][int(tensor)] = arrays[name]
        # Older files have none.
        past = arrays.get(_PAST, np.zeros(self._spec.parameters, np.uint8))
        return Holding(facts["run"], facts["round"], arrays[_MODEL], past, **unsent)


def _arrays_of(holding: Holding) -> Arrays:
    return {
        _MODEL: holding.model,
        _PAST: holding.past,
        **{f"before.{tensor}": values for tensor, values in holding.before.items()},
        **{f"after.{tensor}": values for tensor, values in holding.after.items()},
    }


def _digest(facts: Mapping[str, Any], arrays: Arrays) -> str:
    found = blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16)
    for name in sorted(arrays):
        found.update(f"\n{name} {len(arrays[name])}\n".encode())
        kind = "u1" if name == _PAST else "<f4"
        found.update(np.ascontiguousarray(arrays[name], kind).data)
    return found.hexdigest()
