"""What a Ray worker does: trains clients, one after the other, with the one model that it has."""

import sys
import warnings
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedaq import __version__
from fedaq.errors import FedaqError, NotFiniteError, UserError
from fedaq.settings import Settings
from fedaq.tasks import Examples, blamed
from fedaq.tasks.hardware import use_threads
from fedaq_client.learners import pooled_learner
from fedaq_client.sharing import Share
from fedaq_client.training import Learner, Own, Work

KINDS: dict[str, type[FedaqError]] = {
    kind.__name__: kind for kind in (NotFiniteError, UserError, FedaqError)
}


@dataclass(frozen=True)
class Place:
    """Where workers find what all clients of a run share, and which run it is.

    `path` has the folders of this process's modules: a task may lie in one that Ray does not know.
    """

    version: str
    path: tuple[str, ...]
    task: Any
    data: Any
    settings: Settings


@dataclass(frozen=True)
class At:
    """Where a `Place` is in the object store; workers read it once."""

    key: str
    place: Any


@dataclass(frozen=True)
class Request:
    """What a worker is asked for: the training of a client, or without `work` its test.

    Attributes
    ----------
    held : float32, shape (parameters,)
        In a worker's hands, the place of the model among those of its task.
    """

    held: Any
    share: Share
    buffers: dict[str, Tensor]
    work: Work | None = None

    @property
    def what(self) -> str:
        """In words, for errors."""
        test = "the test of a client"
        return test if self.work is None else f"round {self.work.round}: the training of a client"


@dataclass(frozen=True)
class Failed:
    """An error that is the run's own; exceptions lose their kind on the way."""

    kind: str
    message: str


# Of the run that this process works for, and no other.
_learner: tuple[str, Learner] | None = None


def _learner_of(at: At) -> Learner:
    global _learner  # noqa: PLW0603  a worker process outlives its tasks
    if _learner is None or _learner[0] != at.key:
        import ray

        place: Place = ray.get(at.place)
        if place.version != __version__:
            raise UserError(
                f"a Ray worker has fedaq {__version__}, the run {place.version}; install the same "
                "fedaq on every node"
            )
        sys.path.extend(folder for folder in place.path if folder not in sys.path)
        use_threads(place.settings.threads, default=1)
        task, everything = ray.get([place.task, place.data])
        if isinstance(everything, tuple):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that they cannot be written to: nobody does
                everything = Examples(*map(torch.from_numpy, everything))
        _learner = (at.key, pooled_learner(task, everything, place.settings))
    return _learner[1]


def _lent(at: At, held: NDArray[np.float32], share: Share, buffers: dict[str, Tensor]) -> Learner:
    learner = _learner_of(at)
    learner.held[:] = held
    learner.lend(share, Own(buffers=buffers))
    return learner


def carry_out(at: At, requests: Sequence[Request], *models: NDArray[np.float32]) -> list[Any]:
    """Return what came of each request, in their order; `models` are those that they begin with."""
    return [_answer(at, models[each.held], each) for each in requests]


def _answer(at: At, held: NDArray[np.float32], request: Request) -> Any:
    try:
        learner = _lent(at, held, request.share, request.buffers)
        if request.work is None:
            with blamed(learner.task, "evaluate"):
                found = learner.validate()
            assert found is not None
            return found[0], learner.taken_back().buffers
        with blamed(learner.task, "training"):
            loss, state = learner.work(request.work, lambda done, total: None)
        # The next client of the task uses the same memory.
        return loss, learner.weights.copy(), deepcopy(state), learner.taken_back().buffers
    except FedaqError as error:
        return _failed(error)


def _failed(error: FedaqError) -> Failed:
    kind = next(name for name, kind in KINDS.items() if isinstance(error, kind))
    return Failed(kind, str(error))
