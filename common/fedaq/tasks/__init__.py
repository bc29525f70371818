"""What is learned: a model, its data, and how both sides train and evaluate it.

A task of your own is a `Task`, or a function of the ``--data`` path that returns one;
``--task package.module:attribute`` names it (docs/reference/tasks.md).

Here are the built-in tasks, too, and how the data of one machine is shared out. What travels of a
model is in `fedaq.codec`.
"""

from fedaq.tasks.classifier import (
    Normalise,
    evaluate_classifier,
    measure_statistics,
    train_classifier,
)
from fedaq.tasks.loading import BUILT_IN, load_attribute, load_task
from fedaq.tasks.parts import Evaluation, Examples, Training
from fedaq.tasks.task import Task, blamed, initial_model, signature_of, subset

__all__ = [
    "BUILT_IN",
    "Evaluation",
    "Examples",
    "Normalise",
    "Task",
    "Training",
    "blamed",
    "evaluate_classifier",
    "initial_model",
    "load_attribute",
    "load_task",
    "measure_statistics",
    "signature_of",
    "subset",
    "train_classifier",
]
