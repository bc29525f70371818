"""What a client learns with: the model in one flat array, and its own data."""

from collections.abc import Sized

import numpy as np
import torch

from fedaq.errors import UserError
from fedaq.model import bind, spec_of
from fedaq.partition import WHOLE, Partition, owners_of
from fedaq.quantizer import derive_seed
from fedaq.settings import PartitionSettings
from fedaq.tasks import Task, Training, subset


class Learner:
    """A model and the client's data.

    Parameters
    ----------
    task : Task
    data : Sized
        The client's training examples.

    Attributes
    ----------
    weights : float32, shape (parameters,)
        Shares its memory with the model; the received model is written here.
    update : float32, shape (parameters,)
        After `train`, what training added to the received weights.
    """

    def __init__(self, task: Task, data: Sized) -> None:
        self._task = task
        self._data = data
        self._model = task.model()
        self.spec = spec_of(self._model)
        self.weights = bind(self._model, self.spec)
        self.update = np.zeros_like(self.weights)

    @property
    def examples(self) -> int:
        """Number of training examples."""
        return len(self._data)

    def train(self, training: Training, seed: int, name: str, round_number: int) -> float:
        """Train from the received weights, leave the update, return the mean loss."""
        training_seed = derive_seed(seed, "train", name, round_number)
        np.copyto(self.update, self.weights)
        torch.manual_seed(training_seed)
        loss = self._task.train(self._model, self._data, training, training_seed)
        np.subtract(self.weights, self.update, out=self.update)
        return loss


def local_data(everything: Sized, partition: Partition, how: PartitionSettings, seed: int) -> Sized:
    """Return the client's examples: all of the data set, or its part of it.

    Raises
    ------
    UserError
        If there are none, or the data set cannot be shared out like that.
    """
    if len(everything) == 0:
        raise UserError("the task's training data is empty")
    if partition == WHOLE:
        return everything
    owners = owners_of(everything, partition.parts, how, seed)
    return subset(everything, np.flatnonzero(owners == partition.index))
