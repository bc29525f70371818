"""What of a module neither travels nor is trained, and changes all the same: a counter of batches.

A module that several clients train in turn must have each find its own.
"""

import torch
from torch import Tensor, nn

from fedaq.codec.model import ModelSpec


class StayingBuffers:
    """The buffers of a module that do not travel.

    Parameters
    ----------
    module : nn.Module
        As it is before any training.
    spec : ModelSpec
        What of it travels.
    """

    def __init__(self, module: nn.Module, spec: ModelSpec) -> None:
        self._module = module
        self._travelling = {tensor.name for tensor in spec.tensors}
        self._first = {name: value.clone() for name, value in self._now().items()}

    def changed(self) -> dict[str, Tensor]:
        """Return copies, by their names, of those that are not as they were at first."""
        return {
            name: value.clone()
            for name, value in self._now().items()
            if name not in self._first or not _same(value, self._first[name])
        }

    @torch.no_grad()
    def put(self, changed: dict[str, Tensor]) -> None:
        """Have them as they were when `changed` returned this."""
        now, wanted = self._now(), self._first | changed
        for name, value in wanted.items():
            if name in now and now[name].shape == value.shape:
                now[name].copy_(value)
            else:
                self._set(name, value.clone())
        for name in now.keys() - wanted.keys():
            self._set(name, None)

    def _now(self) -> dict[str, Tensor]:
        named = self._module.named_buffers()
        return {name: value for name, value in named if name not in self._travelling}

    def _set(self, name: str, value: Tensor | None) -> None:
        place, _, leaf = name.rpartition(".")
        setattr(self._module.get_submodule(place), leaf, value)


def _same(one: Tensor, other: Tensor) -> bool:
    if one.layout != other.layout:
        return False
    if one.layout != torch.strided:
        # Sparse ones cannot be compared as they are.
        one, other = one.to_dense(), other.to_dense()
    return one.equal(other)
