"""What is learned: a model, its data, and how both sides train and evaluate it.

A task of your own is a `Task`, or a function of the ``--data`` path that returns one;
``--task package.module:attribute`` names it (docs/reference/tasks.md).

Here are the built-in tasks, too, and how the data of one machine is shared out. What travels of a
model is in `fedaq.codec`.
"""

from fedaq.metric import Metric
from fedaq.tasks.classifier import (
    Normalise,
    evaluate_classifier,
    measure_statistics,
    train_classifier,
    trainer,
)
from fedaq.tasks.context import TrainingContext
from fedaq.tasks.loading import BUILT_IN, load_attribute, load_task, made_task, place_of
from fedaq.tasks.parts import Evaluation, Examples
from fedaq.tasks.scores import evaluate_regression, evaluate_tokens, f1_macro, iou_macro
from fedaq.tasks.task import (
    Task,
    TaskError,
    blamed,
    initial_model,
    read_data,
    signature_of,
    subset,
)
from fedaq.tasks.testing import evaluated
from fedaq.tasks.training import Training

__all__ = [
    "BUILT_IN",
    "Evaluation",
    "Examples",
    "Metric",
    "Normalise",
    "Task",
    "TaskError",
    "Training",
    "TrainingContext",
    "blamed",
    "evaluate_classifier",
    "evaluate_regression",
    "evaluate_tokens",
    "evaluated",
    "f1_macro",
    "initial_model",
    "iou_macro",
    "load_attribute",
    "load_task",
    "made_task",
    "measure_statistics",
    "place_of",
    "read_data",
    "signature_of",
    "subset",
    "train_classifier",
    "trainer",
]
