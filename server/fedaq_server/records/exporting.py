"""A trained model for other programs."""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedaq.errors import FedaqError, UserError
from fedaq.files import replacing
from fedaq.modules.bound import Bound
from fedaq.tasks import Examples, Task, initial_model, load_task, read_data, signature_of
from fedaq.tasks.examples import example, pair_of
from fedaq_server.records.saved import FILE, SavedRun, read_run
from fedaq_server.records.weights import read_weights

INPUT, OUTPUT = "inputs", "scores"


def export_model(folder: Path, to: Path, data: Path | None = None) -> None:
    """Write the model of a run that is over; the size of a batch stays open.

    Parameters
    ----------
    folder : Path
        Of the run.
    to : Path
        Its ending, ``.onnx`` or ``.pt2``, is the format.
    data : Path, optional
        Of the task, if its data is no longer where the run had it.

    Raises
    ------
    UserError
        If there is no such run, format or data.
    FedaqError
        If torch cannot export the model.
    """
    write = _WRITERS.get(to.suffix)
    if write is None:
        raise UserError(f"--to {to}: the ending must be {' or '.join(_WRITERS)}")
    run = read_run(folder)
    data = data or data_of(run, folder)
    task = load_task(run.task, data)
    model = trained_model(task, run, folder)
    inputs = _two_inputs(task, data)
    try:
        with _quiet(), replacing(to) as partial:
            write(model, inputs, partial)
    except (OSError, ModuleNotFoundError):
        raise
    except Exception as error:  # torch's exporter raises almost anything
        said = str(error).strip().partition("\n")[0]
        raise FedaqError(f"torch cannot export this model as {to.suffix}: {said}") from error


def data_of(run: SavedRun, folder: Path) -> Path | None:
    """Return where the data of a run's task was.

    Raises
    ------
    UserError
        If what the record says is no path.
    """
    data = run.settings.get("data")
    if not isinstance(data, str | None):
        raise UserError(f"{folder / FILE}: not the record of a run: settings.data: not a path")
    return None if data is None else Path(data)


def _base_of(run: SavedRun) -> Path | None:
    """Return the file that the run began with; the digest of what it lacks is checked later."""
    given = run.settings.get("start_from")
    return Path(given) if isinstance(given, str) and Path(given).exists() else None


def trained_model(task: Task, run: SavedRun, folder: Path) -> nn.Module:
    """Return the task's module with the weights of a run that is over, ready to be used.

    Raises
    ------
    UserError
        If the run is not over, or its weights are another model's.
    """
    if not run.finished:
        raise UserError(f"{folder}: the run is not over, and has no final model yet")
    model = initial_model(task, run.seed, _base_of(run))
    spec = signature_of(task, model)
    weights = np.empty(spec.parameters, np.float32)
    read_weights(folder / "model.safetensors", spec, weights, task.renamed)
    Bound(model, spec).load(weights)
    return model.eval()


def _two_inputs(task: Task, data: Path | None) -> Tensor:
    """Return inputs to trace a model with; of a batch of one, torch would keep the size."""
    examples = read_data(task, "test_data", data)
    if isinstance(examples, Examples):
        one = examples.inputs[:1]
    else:
        try:
            one = torch.as_tensor(pair_of(example(examples, 0))[0]).unsqueeze(0)
        except (TypeError, RuntimeError, ValueError, UserError):
            raise UserError(
                f"task {task.name}: its test data yields no (input, label), so what its model "
                "takes is not known"
            ) from None
    return torch.cat([one, one])


def _write_onnx(model: nn.Module, inputs: Tensor, path: Path) -> None:
    for name in ("onnx", "onnxscript"):  # torch would say so in many words
        __import__(name)
    program: Any = torch.onnx.export(
        model,
        (inputs,),
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=(_any_batch(),),
        dynamo=True,
        verbose=False,
    )
    program.save(path)


def _write_pt2(model: nn.Module, inputs: Tensor, path: Path) -> None:
    program = torch.export.export(model, (inputs,), dynamic_shapes=(_any_batch(),))
    for node in program.graph.nodes:
        # Where a layer's name has a comma, torch could not read it.
        node.meta.pop("nn_module_stack", None)
    # It insists on the ending in the name of a file.
    with path.open("wb") as file:
        torch.export.save(program, file)


def _any_batch() -> dict[int, Any]:
    return {0: torch.export.Dim("batch")}


_WRITERS: dict[str, Callable[[nn.Module, Tensor, Path], None]] = {
    ".onnx": _write_onnx,
    ".pt2": _write_pt2,
}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to itself what torch says of packages that this model does not need."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
