"""Data that scikit-learn carries, read without importing it, which takes a second."""

import gzip
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedaq.errors import UserError
from fedaq.tasks import Examples

Reader = Callable[[Path | None], Examples]


def folder(task: str) -> Path:
    """Return the folder of its data sets.

    Raises
    ------
    UserError
        If it is not installed; the sentence names the task.
    """
    package = find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise UserError(f"task {task}: scikit-learn carries the data; pip install scikit-learn")
    return Path(package.submodule_search_locations[0]) / "datasets"


def table(task: str, name: str, delimiter: str | None = None) -> NDArray[np.float64]:
    """Return the numbers of a compressed text file, a row for each line."""
    with gzip.open(folder(task) / "data" / name, "rt") as text:
        return np.loadtxt(text, delimiter=delimiter)


def shuffled(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return rows in an order that is always the same, as float32."""
    order = np.random.default_rng(0).permutation(len(rows))
    return rows[order].astype(np.float32)


def held_out(read: Callable[[], Examples], count: int) -> tuple[Reader, Reader]:
    """Return how training and test data are read, where the first examples are for testing."""

    def train(data: Path | None) -> Examples:
        everything = read()
        return Examples(everything.inputs[count:], everything.targets[count:])

    def test(data: Path | None) -> Examples:
        everything = read()
        return Examples(everything.inputs[:count], everything.targets[:count])

    return train, test
