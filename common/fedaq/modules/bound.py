"""A module and the flat array of what travels of it, kept equal."""

import numpy as np
import torch
from torch import Tensor, nn

from fedaq.codec.model import ModelSpec
from fedaq.codec.quantizer import Floats
from fedaq.errors import UserError
from fedaq.modules.places import identity, own_tensors
from fedaq.modules.signature import shape_of

_NARROW = (torch.bfloat16, torch.float16)


class Bound:
    """A module whose values are in one flat array.

    Tensors of float32 in the processor's memory share their memory with the array: writing one
    changes the other, and what was tied stays tied. Others (bf16, on a GPU, complex) are copied
    by `load` and `gather`. `gather` finds also what training put in the place of a tensor.

    Parameters
    ----------
    module : nn.Module
    spec : ModelSpec
        What `fedaq.modules.signature.spec_of` says of it.
    flat : float32, shape (parameters,), optional
        The memory to use; new, unless it is given.

    Attributes
    ----------
    flat : float32, shape (parameters,)
        The values of the module.
    """

    def __init__(self, module: nn.Module, spec: ModelSpec, flat: Floats | None = None) -> None:
        self.module = module
        self.spec = spec
        self.flat = np.empty(spec.parameters, np.float32) if flat is None else flat
        state = module.state_dict(keep_vars=True)
        tied: dict[object, list[Tensor]] = {}
        for _, value in own_tensors(module).values():
            tied.setdefault(identity(value), []).append(value)
        for tensor, part in spec.named:
            value = state[tensor.name]
            view = self._view(part, value)
            view.copy_(_real(value))
            if _can_share(value):
                for same in tied[identity(value)]:
                    same.data = view

    def load(self, values: Floats) -> None:
        """Write the values of all tensors, float32, shape (parameters,), to the module."""
        if values is not self.flat:
            np.copyto(self.flat, values)
        state = self.module.state_dict(keep_vars=True)
        with torch.no_grad():
            for tensor, part in self.spec.named:
                value = state[tensor.name]
                if not self._shares(value, part):
                    _real(value).copy_(self._view(part, value))

    def gather(self) -> list[tuple[slice, torch.dtype]]:
        """Bring `flat` up to date with the module.

        Returns
        -------
        list of (slice, dtype)
            Where the module cannot hold all float32 values, so that what it held after `load` was
            what is left of them in that type.

        Raises
        ------
        UserError
            If a tensor is gone, or has another shape.
        """
        state = self.module.state_dict(keep_vars=True)
        rounded: list[tuple[slice, torch.dtype]] = []
        for tensor, part in self.spec.named:
            value = state.get(tensor.name)
            if value is None or not isinstance(value, Tensor) or shape_of(value) != tensor.shape:
                now = "is gone" if value is None else f"has shape {tuple(value.shape)}"
                raise UserError(
                    f"train replaced tensor {tensor}: it {now}; what is sent must keep its name "
                    "and its shape"
                )
            if value.dtype in _NARROW:
                rounded.append((part, value.dtype))
            if not self._shares(value, part):
                view = self._view(part, value)
                view.copy_(_real(value))
                if _can_share(value):
                    value.data = view
        return rounded

    def _view(self, part: slice, value: Tensor) -> Tensor:
        return torch.from_numpy(self.flat[part]).view(shape_of(value))

    def _shares(self, value: Tensor, part: slice) -> bool:
        return (
            _can_share(value)
            and value.is_contiguous()
            and (not value.numel() or value.data_ptr() == self.flat[part].ctypes.data)
        )


def _can_share(value: Tensor) -> bool:
    return value.dtype == torch.float32 and value.device.type == "cpu"


def _real(value: Tensor) -> Tensor:
    """Return a tensor's values as they travel: complex numbers as two."""
    value = value.detach()
    return torch.view_as_real(value) if value.is_complex() else value
