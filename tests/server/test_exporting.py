"""A trained model outside of fedaq: in ONNX Runtime, as a PyTorch program, in plain PyTorch."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from fedaq import tasks
from fedaq.errors import FedaqError, UserError
from fedaq.tasks import Examples, Task, load_task
from fedaq_lab.local import federate
from fedaq_server.records.exporting import export_model, trained_model
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.saved import read_run
from fedaq_server.records.weights import write_weights
from fedaq_server.run import Run
from server.run_files import write_run
from system.live import settings_of

DIGITS = load_task("digits", None)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    asyncio.run(federate(Run(settings_of(2, rounds=3), Ledger(folder), lambda record: None)))
    return folder


@pytest.fixture
def expected(run: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield inputs, more than the exporter saw at once, and what the model makes of them."""
    saved = read_run(run)
    test_data: Any = DIGITS.test_data(None)
    model = trained_model(DIGITS, saved, run)
    accuracy = DIGITS.evaluate(model, test_data).accuracy
    assert accuracy == pytest.approx(saved.rounds[-1].test_accuracy)
    with torch.no_grad():
        yield test_data.inputs[:7], model(test_data.inputs[:7])


def test_onnx_runtime_gives_the_same_scores(
    run: Path, expected: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    export_model(run, tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    session = runtime.InferenceSession(str(tmp_path / "model.onnx"))
    (scores,) = session.run(["scores"], {"inputs": expected[0].numpy()})
    assert np.allclose(scores, expected[1], atol=1e-5)


def test_a_pytorch_program_gives_the_same_scores(
    run: Path, expected: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    export_model(run, tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    assert torch.allclose(program(expected[0]), expected[1], atol=1e-6)


def test_a_layer_whose_name_has_commas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch could not read back what it wrote of such a layer."""

    def model() -> nn.Module:
        layers = nn.Sequential()
        layers.add_module("cat,dog", nn.Linear(64, 10))
        return layers

    monkeypatch.setitem(globals(), "comma", replace(DIGITS, model=model))
    monkeypatch.setitem(tasks.BUILT_IN, "comma", f"{__name__}:comma")
    folder = finished(tmp_path / "run", "comma", layers := model())
    export_model(folder, tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    assert torch.equal(program(torch.ones(5, 64)), layers(torch.ones(5, 64)))


def test_plain_pytorch_loads_the_weights(run: Path, expected: tuple[Tensor, Tensor]) -> None:
    """As docs/how-to/report.md says."""
    from safetensors.torch import load_file

    model = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)
    )
    model.load_state_dict(load_file(run / "model.safetensors"), strict=False)
    model.eval()
    assert torch.equal(model(expected[0]), expected[1])


# ---- Mistakes ------------------------------------------------------------------


def finished(folder: Path, task: str, model: nn.Module, **facts: Any) -> Path:
    from fedaq.modules.bound import Bound
    from fedaq.modules.signature import spec_of
    from server.test_saved import FACTS, record

    folder.mkdir()
    settings = {"data": None}
    write_run(folder, {**FACTS, "task": task, "settings": settings, **facts}, [record(1)])
    spec = spec_of(model)
    write_weights(folder / "model.safetensors", spec, Bound(model, spec).flat)
    return folder


def test_a_record_that_says_nothing_of_data(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run", "digits", DIGITS.model(), settings={})
    export_model(folder, tmp_path / "model.pt2")
    assert (tmp_path / "model.pt2").exists()


class Choosy(nn.Module):
    """A model that looks at its values, which no exporter can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(64, 10))

    def forward(self, inputs: Tensor) -> Any:
        return inputs @ self.weight if inputs.sum().item() > 0 else inputs @ -self.weight


class Texts(Dataset[str]):
    """Data of which no tensor can be made."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> str:
        return "some text"


def of_choosy(data: Path | None) -> Examples:
    return Examples(torch.ones(1, 64), torch.zeros(1, dtype=torch.int64))


choosy = Task("choosy", Choosy, of_choosy, of_choosy)
texts = replace(DIGITS, test_data=lambda data: Texts())


def test_a_model_that_cannot_be_exported_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tasks.BUILT_IN, "choosy", f"{__name__}:choosy")
    folder = finished(tmp_path / "run", "choosy", Choosy())
    with pytest.raises(FedaqError, match=r"^torch cannot export this model as \.pt2: ") as error:
        export_model(folder, tmp_path / "model.pt2")
    assert "\n" not in str(error.value)


def test_mistakes_are_one_line(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tasks.BUILT_IN, "texts", f"{__name__}:texts")
    going = finished(tmp_path / "going", "digits", DIGITS.model(), finished=False)
    other = finished(tmp_path / "other", "digits", Choosy())
    strange = finished(tmp_path / "texts", "texts", DIGITS.model())
    for folder, to, sentence in [
        (run, "model.tflite", r"^--to model.tflite: the ending must be .onnx or .pt2$"),
        (tmp_path, "model.pt2", "no run is in there"),
        (going, "model.pt2", "going: the run is not over, and has no final model yet$"),
        (other, "model.pt2", r"holds 1 tensors, the task's model has 6; 0.weight is missing$"),
        (strange, "model.pt2", r"task digits: its test data yields no \(input, label\)"),
    ]:
        with pytest.raises(UserError, match=sentence):
            export_model(folder, Path(to))
    odd = finished(tmp_path / "odd", "digits", DIGITS.model(), settings={"data": 5})
    with pytest.raises(UserError, match=r"run.json: not the record of a run: settings.data: "):
        export_model(odd, tmp_path / "model.pt2")
    with pytest.raises(UserError, match="--data nowhere: there is no such file or folder"):
        export_model(run, tmp_path / "model.pt2", Path("nowhere"))
    assert not list(tmp_path.glob("*.pt2*"))
