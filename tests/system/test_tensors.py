"""Whole runs with what models keep beside their weights: statistics, frozen and local tensors."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import odd_models
from fedaq import tasks
from fedaq.errors import UserError
from fedaq.tasks import Task, measure_statistics, train_classifier
from fedaq.tasks.digits import task as digits
from fedaq_client import learners
from fedaq_client.training import Learner
from fedaq_lab.local import federate
from fedaq_server.records.exporting import trained_model
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.saved import read_run
from fedaq_server.rounds import round as server_round
from fedaq_server.rounds import turns
from fedaq_server.run import Run
from fedaq_server.transport.tcp_counter import NoWire
from system.live import settings_of

CLIENTS = 2


def normalized() -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, 24), nn.BatchNorm1d(24), nn.ReLU(),
        nn.Linear(24, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 10),
    )  # fmt: skip


def run_of(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    task: Task,
    clients: int = CLIENTS,
    **flags: Any,
) -> tuple[Run, dict[str, Tensor], list[nn.Module]]:
    """Run a federation; return it, the server's state at its end, and the clients' modules."""
    monkeypatch.setattr(odd_models, "odd", task, raising=False)
    monkeypatch.setitem(tasks.BUILT_IN, "own", "odd_models:odd")
    modules: list[nn.Module] = []

    def learner(*arguments: Any, **others: Any) -> Any:
        one = Learner(*arguments, **others)
        modules.append(one.model)
        return one

    monkeypatch.setattr(learners, "Learner", learner)
    folder.mkdir(exist_ok=True)
    run = Run(settings_of(clients, task="own", **flags), Ledger(folder), lambda record: None)
    asyncio.run(federate(run))
    assert all(record.clients == clients for record in run.records)
    bound: Any = run.federation
    state = {
        tensor.name: torch.from_numpy(bound.model[part].copy()).view(tensor.shape)
        for tensor, part in run.spec.named
    }
    return run, state, modules


SCHEMES: list[Mapping[str, Any]] = [
    {},
    {"energy__budget_j": 0.02},
    {"energy__budget_j": 0.2, "coding__downlink": "model"},
    {"energy__budget_j": 0.6, "coding__entropy": False},
    {"energy__budget_j": 0.6, "coding__entropy": False, "coding__downlink": "model"},
    # So little that all of it is spent.
    {"energy__budget_j": 0.05, "coding__entropy": False, "coding__downlink": "model"},
    {"coding__entropy": False, "coding__downlink": "model"},
    {"scheme": "fixed", "fixed__uplink_bits": 1, "fixed__downlink_bits": 1},
    {"scheme": "fixed", "fixed__uplink_bits": 2, "coding__downlink": "difference"},
    {"scheme": "fixed", "fixed__clip": True, "base": "exact"},
    {"scheme": "feddq"},
    {"scheme": "stc", "stc__fraction": "1/20"},
    {"scheme": "topk", "topk__fraction": "1/20"},
    {"scheme": "adaquantfl"},
    {"scheme": "dadaquant"},
    {"aggregation": "median"},
]


@pytest.mark.parametrize("flags", SCHEMES, ids=str)
def test_statistics_stay_sound_whatever_the_scheme(
    flags: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = replace(digits, model=normalized)
    run, state, _ = run_of(tmp_path / "run", monkeypatch, task, rounds=4, **flags)
    assert all(np.isfinite(record.test_loss) for record in run.records)
    for layer in (1, 4):
        assert (state[f"{layer}.running_var"] > 0).all()
        assert (state[f"{layer}.running_mean"] != 0).any()
    budget_j = run.settings.energy.budget_j
    assert budget_j is None or sum(r.energy_j for r in run.records) <= budget_j


@pytest.mark.parametrize("downlink", ["difference", "model"])
def test_unquantized_statistics_are_the_weighted_mean_of_the_clients(
    downlink: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = replace(digits, model=normalized)
    flags: dict[str, Any] = {"scheme": "fp32", "coding__downlink": downlink, "rounds": 1}
    trained: list[dict[str, Tensor]] = []
    sizes: list[int] = []

    def train(model: nn.Module, data: Any, training: Any, seed: int) -> float:
        loss = train_classifier(model, data, training, seed)
        trained.append({name: value.clone() for name, value in model.state_dict().items()})
        sizes.append(len(data))
        return loss

    _, state, _ = run_of(tmp_path / "run", monkeypatch, replace(task, train=train), **flags)
    for name, value in state.items():
        pairs = zip(sizes, trained, strict=True)
        mean = sum((n * t[name].double() for n, t in pairs), torch.tensor(0.0)) / sum(sizes)
        assert torch.allclose(value.double(), mean, rtol=1e-5, atol=1e-6), name


def test_the_model_that_is_saved_is_what_clients_held_with_its_own_statistics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = replace(digits, model=normalized)
    run, _, _ = run_of(tmp_path / "run", monkeypatch, task, rounds=4, energy__budget_j=0.05)
    saved = load_file(tmp_path / "run" / "model.safetensors")
    module = normalized()
    module.load_state_dict(saved, strict=False)
    tested = task.evaluate(module, task.test_data(None))
    last = run.records[-1]
    assert (tested.accuracy, tested.loss) == (last.test_accuracy, last.test_loss)
    assert far_from_measured(task, module) < 0.15


def far_from_measured(task: Task, module: nn.Module) -> float:
    """Return how far means are from those that are measured, in deviations."""
    kept = {name: value.clone() for name, value in module.state_dict().items()}
    measure_statistics(module, task.train_data(None), 1)
    measured = module.state_dict()
    errors = [
        (measured[name] - kept[name]) / measured[name.replace("mean", "var")].sqrt()
        for name in kept
        if name.endswith("running_mean")
    ]
    return float(torch.cat(errors).square().mean().sqrt())


def test_where_clients_take_turns_their_statistics_are_those_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[int] = []

    def counted(*arguments: Any) -> frozenset[str]:
        chosen = turns.reporters(*arguments)
        heard.append(len(chosen))
        return chosen

    monkeypatch.setattr(server_round, "reporters", counted)
    task = replace(digits, model=normalized)
    run_of(tmp_path / "run", monkeypatch, task, clients=5, rounds=5)
    assert heard[0] == 5 > heard[-1]
    module = normalized()
    module.load_state_dict(load_file(tmp_path / "run" / "model.safetensors"), strict=False)
    assert far_from_measured(task, module) < 0.15


def test_a_run_that_goes_on_after_its_last_round_saves_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = replace(digits, model=normalized)
    run_of(tmp_path / "whole", monkeypatch, task, rounds=3)
    with monkeypatch.context() as patch:
        patch.setattr(Run, "_finish", lambda self: None)
        run, _, _ = run_of(tmp_path / "run", patch, task, rounds=3)
    monkeypatch.setattr(odd_models, "odd", task, raising=False)
    monkeypatch.setitem(tasks.BUILT_IN, "own", "odd_models:odd")
    run.ledger.close()
    again = Run(run.settings, Ledger(tmp_path / "run"), lambda record: None)
    asyncio.run(again.rounds(NoWire()))
    whole, resumed = (tmp_path / name / "model.safetensors" for name in ("whole", "run"))
    assert resumed.read_bytes() == whole.read_bytes()


def test_a_loop_of_ones_own_is_not_measured_unless_it_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = replace(digits, model=normalized, train=in_double)
    run, state, _ = run_of(tmp_path / "run", monkeypatch, task, rounds=2)
    saved = load_file(tmp_path / "run" / "model.safetensors")
    # What is saved is the newest model.
    assert all(torch.equal(value, state[name]) for name, value in saved.items() if name in state)
    assert not run.federation.measured


def test_local_tensors_stay_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Normalization of one's own (FedBN), and a head of one's own."""
    task = replace(digits, model=normalized, tensors={"*.running_*": "local", "6.*": "local"})
    run, state, (one, other) = run_of(tmp_path / "run", monkeypatch, task, rounds=3)
    assert not any("running" in name or name.startswith("6.") for name in state)
    for name in ("1.running_mean", "4.running_var", "6.weight"):
        values = [module.state_dict()[name] for module in (one, other)]
        assert not torch.equal(*values)
    assert run.spec.statistics.start == run.spec.parameters


def test_what_is_the_servers_goes_down_and_does_not_come_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = replace(digits, model=normalized, tensors={"6.*": "server"})
    _, state, _ = run_of(tmp_path / "run", monkeypatch, task, rounds=2)
    torch.manual_seed(0)
    first = tasks.initial_model(task, settings_of(CLIENTS).seed).state_dict()
    assert torch.equal(state["6.weight"], first["6.weight"])
    assert not torch.equal(state["3.weight"], first["3.weight"])


def frozen_base() -> nn.Module:
    module = normalized()
    for name, value in module.named_parameters():
        value.requires_grad_(name.startswith("6"))
    return module


@pytest.mark.parametrize("flags", [{}, {"scheme": "fixed"}, {"coding__downlink": "model"}], ids=str)
def test_not_one_bit_of_what_is_frozen_changes(
    flags: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = replace(digits, model=frozen_base)
    run, state, modules = run_of(tmp_path / "run", monkeypatch, task, rounds=2, **flags)
    first = tasks.initial_model(task, run.settings.seed).state_dict()
    assert [name for name in state if "running" not in name] == ["6.weight", "6.bias"]
    for module in modules:
        for name, value in module.state_dict().items():
            if name.endswith("weight") and not name.startswith("6"):
                assert torch.equal(value, first[name])
    assert run.spec.parameters < 500


def test_a_client_whose_frozen_weights_are_others_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = iter(range(10))

    def other() -> nn.Module:
        module = frozen_base()
        with torch.no_grad():
            module.get_parameter("0.weight")[0, 0] += next(made)
        return module

    with pytest.raises(UserError, match="weights that never travel"):
        run_of(tmp_path / "run", monkeypatch, replace(digits, model=other), rounds=1)


def moving(model: nn.Module, data: Any, training: Any, seed: int) -> float:
    """Train in another place, and put the result where the model was."""
    loss = train_classifier(model, data, training, seed)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    return loss


def in_double(model: nn.Module, data: Any, training: Any, seed: int) -> float:
    loss = train_classifier(model, data, training, seed)
    model.double()
    model.float()
    return loss


@pytest.mark.parametrize("train", [moving, in_double])
def test_weights_that_training_puts_elsewhere_are_learned(
    train: Callable[..., float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = replace(digits, model=normalized, measure=measure_statistics)
    _, expected, _ = run_of(tmp_path / "plain", monkeypatch, task, rounds=2)
    _, state, _ = run_of(tmp_path / "moved", monkeypatch, replace(task, train=train), rounds=2)
    for name, value in expected.items():
        assert torch.equal(state[name], value), name


class Narrow(nn.Sequential):
    """Weights in bfloat16."""

    def __init__(self) -> None:
        super().__init__(normalized())
        self.to(torch.bfloat16)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self[0](inputs.to(torch.bfloat16))
        return outputs.float()


def test_weights_of_sixteen_bits_are_learned_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the server adds up is finer than what a client can hold."""
    task = replace(digits, model=Narrow)
    run, state, modules = run_of(
        tmp_path / "run", monkeypatch, task, rounds=8, scheme="fp32", training__local_epochs=2
    )
    assert run.records[-1].test_accuracy > 0.9
    weight = state["0.0.weight"]
    assert not torch.equal(weight.to(torch.bfloat16).float(), weight)
    assert all(module.get_parameter("0.0.weight").dtype == torch.bfloat16 for module in modules)


def base_file(folder: Path, names: Callable[[str], bool] = lambda name: True) -> Path:
    """Save what another seed's model has, as people save models."""
    torch.manual_seed(77)
    state = {name: value.clone() for name, value in frozen_base().state_dict().items()}
    path = folder / "base.safetensors"
    save_file({name: value for name, value in state.items() if names(name)}, path)
    return path


@pytest.mark.parametrize("what", ["everything", "what is frozen"])
def test_frozen_weights_come_from_the_file_that_the_run_begins_with(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = [n for n, v in frozen_base().named_parameters() if not v.requires_grad]
    path = base_file(tmp_path, (lambda n: True) if what == "everything" else never.__contains__)
    task = replace(digits, model=frozen_base)
    run, _, modules = run_of(tmp_path / "run", monkeypatch, task, rounds=1, start_from=path)
    base = load_file(path)
    for module in modules:
        state = module.state_dict()
        assert all(torch.equal(state[name], base[name]) for name in never)
    trained = trained_model(task, read_run(tmp_path / "run"), tmp_path / "run").state_dict()
    assert all(torch.equal(trained[name], base[name]) for name in never)
    accuracy = task.evaluate(
        trained_model(task, read_run(tmp_path / "run"), tmp_path / "run"), digits.test_data(None)
    ).accuracy
    assert accuracy == pytest.approx(run.records[-1].test_accuracy)
    path.unlink()
    with pytest.raises(UserError, match="beside other frozen weights"):
        trained_model(task, read_run(tmp_path / "run"), tmp_path / "run")


def test_a_client_without_the_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = base_file(tmp_path)

    def learner(*arguments: Any, start_from: Path | None, **others: Any) -> Learner:
        assert start_from == path
        return Learner(*arguments, **others)

    monkeypatch.setattr(odd_models, "odd", replace(digits, model=frozen_base), raising=False)
    monkeypatch.setitem(tasks.BUILT_IN, "own", "odd_models:odd")
    monkeypatch.setattr(learners, "Learner", learner)
    run = Run(settings_of(CLIENTS, task="own", start_from=path), Ledger(tmp_path), lambda r: None)
    with pytest.raises(UserError, match="same file by --from"):
        asyncio.run(federate(run))


def test_a_file_with_half_of_what_is_frozen_is_refused(tmp_path: Path) -> None:
    path = base_file(tmp_path, lambda name: name != "3.weight")
    task = replace(digits, model=frozen_base)
    with pytest.raises(UserError, match=r"base.safetensors: has some .* and not 3.weight; it must"):
        tasks.initial_model(task, 1, path)
    state = {**frozen_base().state_dict(), "3.weight": torch.zeros(24, 24).double()}
    save_file(state, path)
    with pytest.raises(UserError, match=r"3.weight is torch.float64 \(24, 24\); the task's model"):
        tasks.initial_model(task, 1, path)
    with pytest.raises(UserError, match="not a model that can be read"):
        tasks.initial_model(task, 1, tmp_path / "nowhere")
