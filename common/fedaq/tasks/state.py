"""What a task's training keeps from round to round, in memory and as a file.

A file is in the safetensors format: the tensors, numbered, and in its metadata the rest as JSON,
so that reading one runs no code. Dicts are lists of pairs there, for keys that are numbers.
"""

import json
import logging
import shutil
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedaq.errors import UserError
from fedaq.files import make_folder, write

State = dict[str, Any]

log = logging.getLogger(__name__)

_PLAIN = (type(None), bool, int, float, str)


def copied(state: State) -> State:
    """Return a copy that shares no memory with `state`.

    Raises
    ------
    UserError
        If something in it cannot be kept.
    """
    tensors: dict[str, Tensor] = {}
    return _unpacked(_packed(state, _kept_in(tensors), ""), tensors.__getitem__)  # type: ignore[no-any-return]


def write_state(path: Path, state: State, facts: dict[str, Any]) -> None:
    """Write a state and what is to be known of it, whole or not at all.

    Raises
    ------
    UserError
        If something in it cannot be kept, or the file cannot be written.
    """
    content = to_bytes(state, facts)
    try:
        make_folder(path.parent)
        write(path, content)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None


def to_bytes(state: State, facts: dict[str, Any] | None = None) -> bytes:
    """Return what a file of a state has.

    Raises
    ------
    UserError
        If something in it cannot be kept.
    """
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    text = json.dumps({"facts": facts or {}, "state": _packed(state, _kept_in(tensors), "")})
    return save(tensors, {"fedaq": text})


def from_bytes(content: bytes) -> State:
    """Return the state that `to_bytes` was given."""
    from safetensors.torch import load

    length = int.from_bytes(content[:8], "little")
    kept = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["fedaq"])
    return _unpacked(kept["state"], load(content).__getitem__)  # type: ignore[no-any-return]


def read_state(path: Path) -> tuple[State, dict[str, Any]]:
    """Return what `write_state` was given.

    Raises
    ------
    UserError
        If it is missing or not such a file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            kept = json.loads((file.metadata() or {})["fedaq"])
            return _unpacked(kept["state"], file.get_tensor), kept["facts"]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a state of training that can be read: {error}") from None


def _kept_in(tensors: dict[str, Tensor]) -> Callable[[Tensor], str]:
    """Return what takes copies of tensors into `tensors`, and gives each a name."""

    def keep(tensor: Tensor) -> str:
        name = str(len(tensors))
        tensors[name] = tensor.detach().clone(memory_format=torch.contiguous_format)
        return name

    return keep


def _packed(value: Any, keep: Callable[[Tensor], str], at: str) -> Any:
    """Return what stands for a value in JSON: of a tensor, the name that `keep` gives it."""
    if isinstance(value, Tensor):
        return {"tensor": keep(value)}
    if isinstance(value, dict):
        pairs = ([_key(key, at), _packed(of, keep, f"{at}[{key!r}]")] for key, of in value.items())
        return {"dict": list(pairs)}
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_packed(of, keep, f"{at}[{place}]") for place, of in enumerate(value)]}
    if type(value) in _PLAIN:
        return value
    raise UserError(
        f"context.state{at} is a {type(value).__name__}, which cannot be kept; tensors, numbers, "
        "texts, and lists, tuples and dicts of them can"
    )


def _key(key: Any, at: str) -> Any:
    if type(key) not in (int, str):
        raise UserError(f"context.state{at} has the key {key!r}; keys must be texts or integers")
    return key


def _unpacked(packed: Any, tensor: Callable[[str], Tensor]) -> Any:
    """Return what `_packed` was given."""
    if not isinstance(packed, dict):
        return packed
    [(kind, inner)] = packed.items()
    if kind == "tensor":
        return tensor(inner)
    if kind == "dict":
        return {key: _unpacked(value, tensor) for key, value in inner}
    items = [_unpacked(value, tensor) for value in inner]
    return tuple(items) if kind == "tuple" else items


class Kept:
    """The state of one client's training, from round to round of a run.

    It is kept as it was before the last round and as it was after it: a round may be trained
    again, if the server was stopped in it, and begins with the same then.

    Parameters
    ----------
    folder : Path, optional
        Where it lies as files, too, for a client that is started again.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._run_id: str | None = None
        self.begin("")

    def begin(self, run_id: str) -> None:
        """Take part in a run, with the state that it left on the disk, if it did."""
        if run_id == self._run_id:
            return
        self._run_id = run_id
        self._before: State = {}
        self._after: tuple[int, State] = (0, {})
        self._files: Path | None = None

    @property
    def latest(self) -> State:
        """What the last round left."""
        return self._after[1]

    def lend(self, state: State) -> None:
        """Go on with what another client's last round left."""
        self._before, self._after = {}, (0, state)

    def before(self, name: str, round_number: int) -> State:
        """Return a copy of the state with which a client of this name begins a round.

        It is empty, and the log says so, if the files cannot be read.
        """
        if self._folder is not None and self._files is None:
            # Names and run ids are not made for paths.
            place = blake2b(f"{self._run_id}\n{name}".encode(), digest_size=8).hexdigest()
            self._files = self._folder / place
            try:
                for path in sorted(self._files.glob("*.safetensors")):
                    state, facts = read_state(path)
                    self._before, self._after = self._after[1], (int(facts["round"]), state)
            except UserError as error:
                log.warning("%s; begun anew", error)
                self._before, self._after = {}, (0, {})
                shutil.rmtree(self._files, ignore_errors=True)
        if self._after[0] < round_number:
            self._before = self._after[1]
        return copied(self._before)

    def after(self, round_number: int, state: State) -> None:
        """Keep a copy of the state with which a round ended.

        Raises
        ------
        UserError
            If something in it cannot be kept, or the files cannot be written.
        """
        self._after = (round_number, copied(state))
        if self._files is None or not (state or self._files.exists()):
            return
        path = self._files / f"round-{round_number:07}.safetensors"
        write_state(path, self._after[1], {"round": round_number})
        for old in sorted(self._files.glob("*.safetensors"))[:-2]:
            old.unlink()

    def end(self) -> None:
        """Remove the files of a run that is over."""
        if self._files is not None:
            shutil.rmtree(self._files, ignore_errors=True)
