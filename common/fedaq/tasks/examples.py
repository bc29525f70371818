"""How examples are read out of what a task's data is, and put into batches."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset, default_collate

from fedaq.errors import FedaqError, UserError
from fedaq.tasks.context import CPU
from fedaq.tasks.parts import Examples

# The names of columns that people give their data, as public data sets have them.
LABELS = ("label", "labels", "target", "targets", "y", "fine_label")
INPUTS = ("image", "img", "pixel_values", "inputs", "input", "features", "x")


def is_map_style(data: object) -> bool:
    """Tell whether examples can be taken from it by number, as from a torch `Dataset`.

    A ``datasets.Dataset`` of Hugging Face can; a plain list may be anything.
    """
    if isinstance(data, Dataset):
        return True
    plain = isinstance(data, Sequence | Mapping | Tensor | np.ndarray)
    return not plain and hasattr(data, "__getitem__") and hasattr(data, "__len__")


def example(data: Any, index: int) -> Any:
    """Return an example, whatever it is.

    Raises
    ------
    UserError
        If it cannot be read; it names the example by its place in the task's own data set.
    """
    while isinstance(data, Subset):
        data, index = data.dataset, data.indices[index]
    try:
        return data[index]
    except FedaqError:
        raise
    except Exception as error:
        said = str(error).strip().partition("\n")[0]
        raise UserError(
            f"the task's data: {type(data).__name__}[{index}] failed: "
            f"{type(error).__name__}: {said}"
        ) from error


def pair_of(item: Any) -> tuple[Any, Any]:
    """Return input and label of an example: a pair, or a row with named columns.

    Raises
    ------
    UserError
        If it is neither.
    """
    if isinstance(item, tuple | list) and len(item) == 2:
        return _as_tensor(item[0]), item[1]
    if isinstance(item, Mapping):
        label = next((name for name in LABELS if name in item), None)
        others = [name for name in item if name != label]
        known = [name for name in INPUTS if name in others]
        if label is not None and (len(others) == 1 or known):
            return _as_tensor(item[(known or others)[0]]), item[label]
        raise UserError(
            f"an example has the columns {', '.join(map(str, item)) or 'none'}; a label "
            f"({', '.join(LABELS)}) and one more are needed, or {', '.join(INPUTS)}"
        )
    raise UserError(
        f"an example is a {type(item).__name__}; a pair (input, label) is needed, a dict of an "
        "input and a label, or a train and an evaluate of the task's own"
    )


def _as_tensor(value: Any) -> Any:
    """Return a picture of Pillow's as bytes, channels first; everything else as it is."""
    if not hasattr(value, "getbands"):
        return value
    pixels = torch.from_numpy(np.array(value))
    return pixels.unsqueeze(0) if pixels.dim() == 2 else pixels.permute(2, 0, 1)


def device_of(model: nn.Module) -> torch.device:
    """Return where the values of a model are."""
    first = next(chain(model.parameters(), model.buffers()), None)
    return CPU if first is None else first.device


def batches(
    data: Any, order: Iterable[Tensor], device: torch.device = CPU
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield inputs and targets, batch by batch, on a device.

    Parameters
    ----------
    data : Examples or map-style data set
    order : iterable of int64 tensors
        The examples of each batch.
    device : torch.device

    Raises
    ------
    UserError
        If an example cannot be read, or is no input with its label.
    """
    for indices in order:
        if isinstance(data, Examples):
            inputs = data.inputs.index_select(0, indices)
            targets = data.targets.index_select(0, indices)
        else:
            inputs, targets = default_collate([pair_of(example(data, i)) for i in indices.tolist()])
        yield inputs.to(device), targets.to(device)


def in_order(data: Any, size: int, device: torch.device = CPU) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of all examples, as `batches` does."""
    return batches(data, torch.arange(len(data)).split(size), device)
