"""What a `train` is given with its context: the model as received, and a state that lasts."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from common.small_tasks import small_data, small_model
from fedaq.errors import UserError
from fedaq.modules.signature import spec_of
from fedaq.tasks.context import Received, takes_context
from fedaq.tasks.hardware import cores, device_named, use_threads
from fedaq.tasks.state import Kept, copied, read_state, write_state

# ---- Who takes one -----------------------------------------------------------------


def four(model: nn.Module, data: Any, training: Any, seed: int) -> float:
    return 0.0


def five(model: nn.Module, data: Any, training: Any, seed: int, context: Any) -> float:
    return 0.0


class Method:
    def __call__(self, model: nn.Module, data: Any, training: Any, seed: int, *, context: Any):  # type: ignore[no-untyped-def]
        return 0.0


def test_who_has_a_parameter_of_that_name_takes_a_context() -> None:
    assert not takes_context(four)
    assert takes_context(five)
    assert takes_context(Method())
    assert not takes_context(partial(five, context=None)) or takes_context(partial(five))
    assert not takes_context(max)


# ---- The model as received ---------------------------------------------------------


def test_received_values_are_those_of_the_array_itself_and_to_write_them_is_an_error() -> None:
    spec = spec_of(small_model())
    flat = np.arange(spec.parameters, dtype=np.float32)
    received = Received(spec, flat)
    assert list(received) == [tensor.name for tensor in spec.tensors]
    first = received["0.weight"]
    assert first.shape == (8, 6)
    assert first.data_ptr() == flat.ctypes.data
    weight = torch.zeros(8, 6, requires_grad=True)
    (weight - first).square().sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, -2 * torch.arange(48.0).view(8, 6))
    with pytest.raises(KeyError):
        received["nowhere"]
    with pytest.raises(RuntimeError, match="Inplace update"), torch.no_grad():
        first.zero_()


# ---- The state ---------------------------------------------------------------------


def a_state() -> dict[str, Any]:
    """Of an optimizer that has taken a step, and of all kinds of values besides."""
    model, data = small_model(), small_data()
    optimizer = torch.optim.AdamW(model.parameters())
    nn.functional.cross_entropy(model(data.inputs), data.targets).backward()
    optimizer.step()
    return {
        "optimizer": optimizer.state_dict(),
        "control": [torch.arange(3), torch.ones(2, 2, dtype=torch.bfloat16), torch.tensor(1.5)],
        "transposed": torch.arange(6.0).view(2, 3).T,
        "weight": next(model.parameters()),
        "rounds": 3,
        "rate": 0.1,
        "name": "anna",
        "nothing": None,
        "on": True,
        "betas": (0.9, (1, [])),
    }


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other) or isinstance(one, torch.Tensor)
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            assert_same(mine, theirs)
    else:
        assert one == other


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    state = a_state()
    write_state(tmp_path / "new" / "state.safetensors", state, {"round": 3})
    again, facts = read_state(tmp_path / "new" / "state.safetensors")
    assert_same(again, state)
    assert facts == {"round": 3}
    optimizer = torch.optim.AdamW(small_model().parameters())
    optimizer.load_state_dict(again["optimizer"])


def test_a_copy_shares_nothing() -> None:
    state = a_state()
    copy = copied(state)
    assert_same(copy, state)
    copy["control"][0].zero_()
    copy["betas"][1][1].append(1)
    assert_same(state, a_state() | {"optimizer": state["optimizer"], "weight": state["weight"]})


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"a": {"b": [1, {2}]}}, r"context\.state\['a'\]\['b'\]\[1\] is a set, which cannot"),
        ({"model": nn.Linear(1, 1)}, r"\['model'\] is a Linear"),
        ({(1, 2): 3}, r"context\.state has the key \(1, 2\)"),
        ({"a": np.float64(1)}, r"\['a'\] is a float64"),
    ],
)
def test_what_cannot_be_kept_is_refused_and_named(state: dict[Any, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        copied(state)


@pytest.mark.parametrize("content", [b"", b"{}", b"\x80\x04K\x01.", b"\xff" * 64])
def test_another_file_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a state of training") as caught:
        read_state(path)
    assert "\n" not in str(caught.value)


def counted(kept: Kept, number: int, name: str = "anna") -> int:
    """Train a round that counts the rounds; return how many there were before it."""
    state = kept.before(name, number)
    before: int = state.get("rounds", 0)
    state["rounds"] = before + 1
    kept.after(number, state)
    return before


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_round_that_is_trained_again_begins_as_it_did(on_disk: bool, tmp_path: Path) -> None:
    kept = Kept(tmp_path / "states" if on_disk else None)
    kept.begin("run")
    assert [counted(kept, number) for number in (1, 2, 2, 2, 3, 5, 5)] == [0, 1, 1, 1, 2, 3, 3]


def test_a_client_that_is_started_again_goes_on_with_its_state(tmp_path: Path) -> None:
    def started(run_id: str = "run") -> Kept:
        kept = Kept(tmp_path / "states")
        kept.begin(run_id)
        return kept

    kept = started()
    assert [counted(kept, number) for number in (1, 2, 3)] == [0, 1, 2]
    assert counted(started(), 3) == 2
    assert counted(started(), 4) == 3
    assert counted(started(), 1, name="bert") == 0
    assert counted(started("other"), 4) == 0
    last = started()
    assert counted(last, 5) == 4
    files = [len(list(folder.iterdir())) for folder in (tmp_path / "states").iterdir()]
    assert sorted(files) == [1, 1, 2]
    last.end()
    assert len(list((tmp_path / "states").iterdir())) == 2
    assert counted(started(), 6) == 0


def test_who_keeps_nothing_has_no_files(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "states")
    kept.begin("run")
    kept.after(1, kept.before("anna", 1))
    assert not (tmp_path / "states").exists()


# ---- Hardware ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match=f"--device {name}: torch .* finds none here"):
        device_named(name)
    assert device_named("auto") == device_named("cpu") == torch.device("cpu")


@pytest.mark.usefixtures("one_thread")
def test_threads_are_those_asked_for_or_an_equal_share_of_the_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fedaq.tasks.hardware.cores", lambda: 8)
    taken = []
    for asked, default, sharing in (
        (None, 1, 1), (None, 0, 1), (0, 1, 3), (0, 1, 50), (3, 1, 2), (None, 1, 5),
    ):  # fmt: skip
        use_threads(asked, default, sharing)
        taken.append(torch.get_num_threads())
    assert taken == [1, 8, 2, 1, 3, 1]


@pytest.mark.parametrize(
    ("real", "usable", "taken"),
    [(4, 8.0, 4), (8, 2.0, 2), (4, 0.5, 1), (4, 1.5, 1), (None, 4.0, 4)],
)
def test_cores_are_real_ones_that_a_control_group_lets_it_have(
    real: int | None, usable: float, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psutil.cpu_count", lambda logical: real)
    monkeypatch.setattr("fedaq.tasks.hardware.usable_cores", lambda: usable)
    assert cores() == taken
