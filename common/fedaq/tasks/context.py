"""What a task's `train` may know of the run, where it takes a `context`."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedaq.codec.model import ModelSpec
from fedaq.codec.quantizer import Floats
from fedaq.tasks.state import State

CPU = torch.device("cpu")


@dataclass(frozen=True)
class TrainingContext:
    """The fifth argument of a `train` that has a parameter of the name ``context``.

    Attributes
    ----------
    round, rounds : int
        From 1; the rounds are those of the settings, and a budget may end the run before.
    received : mapping of str to Tensor
        The values that the model was received with, float32, by the names of the tensors that
        travel, on `device`. On the processor they are the received model itself, not a copy: torch
        raises an error where one is written to, and asks for a ``.clone()`` where it would have to
        keep one for a backward pass.
    generator : torch.Generator
        On the processor, seeded for this client and round.
    state : dict
        Yours: what is in it after one round is there in the next, for as long as the run goes on.
        It takes tensors, numbers, texts, and lists, tuples and dicts of them, so the
        ``state_dict()`` of an optimizer, too. It begins empty. A round that is trained again
        finds it as it was before that round, and one whose update is not finite leaves it so.
        It is held up to three times.
    device : torch.device
        Where the model is.
    progress : callable
        ``progress(done, total)`` shows how far the training of this round is, in whatever unit.
    """

    round: int = 1
    rounds: int = 1
    received: Mapping[str, Tensor] = field(default_factory=dict)
    generator: torch.Generator = field(default_factory=torch.Generator)
    state: State = field(default_factory=dict)
    device: torch.device = CPU
    progress: Callable[[int, int], None] = lambda done, total: None


class Received(Mapping[str, Tensor]):
    """A flat array of a model as tensors by name; to write into one is an error.

    Parameters
    ----------
    spec : ModelSpec
    flat : float32, shape (parameters,)
    device : torch.device
        A tensor is copied there if that is not the processor.
    """

    def __init__(self, spec: ModelSpec, flat: Floats, device: torch.device = CPU) -> None:
        self._places = {tensor.name: (part, tensor.shape) for tensor, part in spec.named}
        self._flat = flat
        self._device = device

    def __getitem__(self, name: str) -> Tensor:
        part, shape = self._places[name]
        # Outside of this mode, to write into such a tensor raises an error.
        with torch.inference_mode():
            return torch.from_numpy(self._flat[part]).view(shape).to(self._device)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def takes_context(train: Callable[..., float]) -> bool:
    """Tell whether a `train` has a parameter of the name ``context``."""
    try:
        return "context" in inspect.signature(train).parameters
    except (TypeError, ValueError):  # a callable that does not say
        return False
