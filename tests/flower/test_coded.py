"""Apps whose messages carry coded differences, in one thread: what apps and strategies see."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("flwr", reason="needs Flower: make test-flower")

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg, FedProx, Strategy

from fedaq.errors import UserError
from fedaq.flower import Coded
from fedaq.flower.payloads import FIELD, RECORD
from fedaq.v1 import flower_pb2 as pb
from flower.federation import Arrays, Grid, app_of, arrays_of, record_of

NODES, ROUNDS = 4, 12
STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "FedAvg": FedAvg,
    "FedProx": lambda: FedProx(proximal_mu=0.1),
    "FedAdam": lambda: FedAdam(eta=0.02),
}


def beginning() -> Arrays:
    rng = np.random.default_rng(1)
    return {
        "fc.weight": rng.normal(scale=0.1, size=(100, 80)).astype(np.float32),
        "fc.bias": np.zeros(80, np.float32),
        "bn.running_mean": np.zeros(16, np.float32),
        "bn.running_var": np.ones(16, np.float32),
        "bn.num_batches_tracked": np.array(0),
        "half": rng.normal(size=8).astype(np.float16),
    }


TARGET = np.random.default_rng(2).normal(scale=0.3, size=(100, 80)).astype(np.float32)


def towards_target(arrays: Arrays, node: int) -> Arrays:
    mean, variance = arrays["bn.running_mean"], arrays["bn.running_var"]
    return {
        **arrays,
        "fc.weight": arrays["fc.weight"] + np.float32(0.3) * (TARGET - arrays["fc.weight"]),
        "bn.running_mean": (0.9 * mean + 0.2).astype(mean.dtype),
        "bn.running_var": (0.9 * variance + 0.5).astype(variance.dtype),
        "bn.num_batches_tracked": np.int64(arrays["bn.num_batches_tracked"]) + 5,
    }


def run(strategy: Strategy, grid: Grid, rounds: int = ROUNDS) -> Arrays:
    return arrays_of(strategy.start(grid, record_of(beginning()), num_rounds=rounds).arrays)


def distance(arrays: Arrays) -> float:
    return float(np.abs(arrays["fc.weight"] - TARGET).mean())


def total(grid: Grid) -> int:
    return sum(down + up for _, down, up in grid.sizes)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_comes_as_far_as_without(name: str) -> None:
    plain, coded = Grid(app_of(towards_target, mods=[]), NODES), Grid(app_of(towards_target), NODES)
    without = run(STRATEGIES[name](), plain)
    within = run(Coded(STRATEGIES[name]()), coded)
    assert {k: (a.shape, a.dtype) for k, a in within.items()} == {
        k: (a.shape, a.dtype) for k, a in without.items()
    }
    # An update errs by up to a step of 0.1, at random.
    assert distance(within) < distance(without) + 0.02
    np.testing.assert_array_equal(
        within["bn.num_batches_tracked"], without["bn.num_batches_tracked"]
    )
    for statistic in ("bn.running_mean", "bn.running_var"):
        # Half a unit down, and what one is up, each of the power of two below the value.
        np.testing.assert_allclose(within[statistic], without[statistic], rtol=0.15)
    assert 20 * total(coded) < total(plain)


def test_an_app_sees_the_arrays_that_it_would_see_without() -> None:
    seen: dict[str, list[Arrays]] = {"without": [], "with": []}

    def noting(label: str) -> Callable[[Arrays, int], Arrays]:
        def train(arrays: Arrays, node: int) -> Arrays:
            seen[label].append(arrays)
            return towards_target(arrays, node)

        return train

    run(FedAvg(), Grid(app_of(noting("without"), mods=[]), 2), 3)
    run(Coded(FedAvg()), Grid(app_of(noting("with")), 2), 3)
    for here, there in zip(seen["with"], seen["without"], strict=True):
        assert list(here) == list(there)
        assert all(here[name].dtype == there[name].dtype for name in here)
        np.testing.assert_array_equal(
            here["bn.num_batches_tracked"], there["bn.num_batches_tracked"]
        )
    # The first model is sent in fine steps: an error of some two percent.
    error = seen["with"][0]["fc.weight"] - seen["without"][0]["fc.weight"]
    assert error.std() < 0.03 * seen["without"][0]["fc.weight"].std()


def test_all_nodes_train_the_same_model_and_one_that_missed_rounds_catches_up() -> None:
    seen: dict[int, list[bytes]] = {}

    def train(arrays: Arrays, node: int) -> Arrays:
        seen.setdefault(node, []).append(arrays["fc.weight"].tobytes())
        return towards_target(arrays, node)

    grid = Grid(app_of(train), 3)
    there = iter([[1, 2, 3]] * 2 + [[1, 2]] * 6 + [[1, 2, 3]] * 2)
    grid.get_node_ids = lambda: list(now[0])  # type: ignore[method-assign]
    now: list[list[int]] = [[]]

    class Present(FedAvg):  # type: ignore[misc]
        def configure_train(self, *arguments: Any) -> Any:
            now[0] = next(there)
            return super().configure_train(*arguments)

    run(Coded(Present()), grid, 10)
    assert seen[1] == seen[2]
    assert seen[3] == seen[1][:2] + seen[1][-2:]
    # Differences, even all that were missed together, and not the model.
    assert max(down for _, down, _ in grid.sizes[16:]) < 4 * TARGET.size / 2


def test_a_node_that_lost_its_state_loses_one_round() -> None:
    counts = dict.fromkeys(range(1, 4), 0)

    def train(arrays: Arrays, node: int) -> Arrays:
        counts[node] += 1
        return towards_target(arrays, node)

    grid = Grid(app_of(train), 3)

    class Forgetting(FedAvg):  # type: ignore[misc]
        def configure_train(self, number: int, *arguments: Any) -> Any:
            if number == 5:
                grid.contexts[2].state = RecordDict()
            return super().configure_train(number, *arguments)

    arrays = run(Coded(Forgetting()), grid, 8)
    assert counts == {1: 8, 2: 7, 3: 8}
    assert distance(arrays) < 0.05


def test_a_reply_that_is_lost_is_made_up_for() -> None:
    """The server does not know whether the node has the model then: it sends what it lacks."""
    grid = Grid(app_of(towards_target), 3)
    calls = {"train": 0}

    def spoil(reply: Message, node: int) -> Message:
        calls["train"] += 1
        if node == 2 and calls["train"] % 5 == 0:
            raise ConnectionError
        return reply

    grid.spoil = spoil
    original = grid._reply

    def lossy(message: Message) -> list[Message]:
        try:
            return original(message)
        except ConnectionError:
            return []

    grid._reply = lossy  # type: ignore[method-assign]
    assert distance(run(Coded(FedAvg(min_available_nodes=1)), grid)) < 0.05


def test_an_app_without_the_mod_is_refused_in_a_sentence(caplog: pytest.LogCaptureFixture) -> None:
    grid = Grid(app_of(towards_target), 3)
    grid.apps[3] = app_of(towards_target, mods=[])
    with caplog.at_level(logging.WARNING, "flwr"):
        arrays = run(Coded(FedAvg()), grid, 3)
    assert "node 3 failed, and never showed that its app has the mod" in caplog.text
    assert "ClientApp(mods=[coded()])" in caplog.text
    assert distance(arrays) < distance(beginning())


def test_an_app_that_does_without_the_model_and_the_mod(caplog: pytest.LogCaptureFixture) -> None:
    grid = Grid(app_of(towards_target), 3)

    def spoil(reply: Message, node: int) -> Message:
        if node == 3 and reply.metadata.message_type == "train":
            reply.content = RecordDict({"arrays": record_of(beginning())})
        return reply

    grid.spoil = spoil
    with caplog.at_level(logging.WARNING, "flwr"):
        run(Coded(FedAvg()), grid, 2)
    assert "the reply of node 3 is dropped: its app answered without the mod" in caplog.text


def spoiling(change: Callable[[bytes], bytes]) -> Callable[[Message, int], Message]:
    def spoil(reply: Message, node: int) -> Message:
        if node == 3 and reply.metadata.message_type == "train":
            data = change(reply.content[RECORD][FIELD])
            reply.content[RECORD] = ConfigRecord({FIELD: data})
        return reply

    return spoil


def changed(change: Callable[[pb.FlowerUp], object]) -> Callable[[bytes], bytes]:
    def apply(data: bytes) -> bytes:
        up = pb.FlowerUp.FromString(data)
        change(up)
        return up.SerializeToString()

    return apply


HOSTILE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "no message": (lambda data: b"\xff" * 40, "Error parsing message"),
    "of another model": (
        changed(lambda up: setattr(up, "holds", b"12345678")),
        "made with another model",
    ),
    "a step of its own": (
        changed(lambda up: setattr(up.payload.header.tensors[0], "step", 1e4)),
        "not coded in the step that was granted",
    ),
    "no chunks": (changed(lambda up: up.payload.ClearField("chunks")), "the header announces"),
    "chunks twice": (
        changed(lambda up: up.payload.chunks.extend([up.payload.chunks[0]])),
        "is next",
    ),
    "too few tensors": (
        changed(lambda up: up.payload.header.tensors.pop()),
        "tensors, the model",
    ),
    "spreads too short": (changed(lambda up: setattr(up, "spreads", b"abc")), "3 bytes of spreads"),
    "spreads that are not finite": (
        changed(lambda up: setattr(up, "spreads", b"\xff" * len(up.spreads))),
        "not finite",
    ),
    "exact arrays too long": (
        changed(lambda up: setattr(up.payload, "exact", bytes(1000))),
        "1000 bytes of exact arrays",
    ),
    "objects": (
        changed(lambda up: up.payload.dtypes.extend(["object"] * 6)),
        "which cannot be sent",
    ),
    "one dtype": (changed(lambda up: up.payload.dtypes.extend(["float32"])), "dtypes for"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_reply_is_dropped_and_the_round_goes_on(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    change, reason = HOSTILE[name]
    grid, honest = Grid(app_of(towards_target), 3), Grid(app_of(towards_target), 2)
    grid.spoil = spoiling(change)
    with caplog.at_level(logging.WARNING, "flwr"):
        arrays = run(Coded(FedAvg()), grid, 1)
    assert "the reply of node 3 is dropped: " in caplog.text
    assert reason in caplog.text
    expected = run(Coded(FedAvg()), honest, 1)
    np.testing.assert_allclose(arrays["fc.weight"], expected["fc.weight"], atol=0.05)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(place=st.integers(0, 10**6), bits=st.integers(1, 255), cut=st.booleans())
def test_bytes_that_changed_on_the_way_never_end_a_round(place: int, bits: int, cut: bool) -> None:
    def change(data: bytes) -> bytes:
        at = place % len(data)
        return data[:at] if cut and at else data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :]

    grid = Grid(app_of(towards_target), 3)
    grid.spoil = spoiling(change)
    assert np.isfinite(run(Coded(FedAvg()), grid, 1)["fc.weight"]).all()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(place=st.integers(0, 10**6), bits=st.integers(1, 255), cut=st.booleans())
def test_a_node_answers_broken_bytes_with_an_error(place: int, bits: int, cut: bool) -> None:
    app, grid = app_of(towards_target), Grid(app_of(towards_target), 2)
    strategy = Coded(FedAvg())
    [message, _] = strategy.configure_train(1, record_of(beginning()), ConfigRecord(), grid)
    data = message.content[RECORD][FIELD]
    at = place % len(data)
    broken = data[:at] if cut and at else data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :]
    message.content[RECORD] = ConfigRecord({FIELD: broken})
    context = grid.contexts[message.metadata.dst_node_id]
    try:
        reply = app(message, context)
    except KeyError as error:
        # The record's name alone is not in the digest.
        assert str(error) == "'arrays'"
        return
    assert reply.has_error() or reply.has_content()


def test_training_that_fails_is_an_error_that_names_the_array(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def train(arrays: Arrays, node: int) -> Arrays:
        bad = np.full_like(arrays["fc.bias"], np.nan if node == 1 else 0)
        return {**towards_target(arrays, node), "fc.bias": bad}

    with caplog.at_level(logging.INFO, "flwr"):
        arrays = run(Coded(FedAvg()), Grid(app_of(train), 3), 2)
    assert "after training, tensor fc.bias: a value is NaN or infinite" in caplog.text
    assert np.isfinite(arrays["fc.bias"]).all()


def test_arrays_that_are_not_those_received_are_sent_as_they_are() -> None:
    def train(arrays: Arrays, node: int) -> Arrays:
        return {"delta": np.full(3, node, np.float64)}

    class Taking(FedAvg):  # type: ignore[misc]
        taken: list[ArrayRecord] = []  # noqa: RUF012

        def aggregate_train(self, number: int, replies: Any) -> Any:
            self.taken += [reply.content["arrays"] for reply in replies]
            return None, None

    Coded(Taking()).start(Grid(app_of(train), 2), record_of(beginning()), num_rounds=2)
    assert [arrays_of(record)["delta"].tolist() for record in Taking.taken[:2]] in (
        [[1.0] * 3, [2.0] * 3],
        [[2.0] * 3, [1.0] * 3],
    )


@pytest.mark.parametrize("budget", [60_000, 120_000, 300_000])
@pytest.mark.parametrize("fractions", [(1.0, 1.0), (0.5, 1.0), (1.0, 0.0)])
def test_a_budget_of_bytes_is_kept(budget: int, fractions: tuple[float, float]) -> None:
    train, evaluate = fractions
    grid = Grid(app_of(towards_target), NODES)
    inner = FedAvg(fraction_train=train, fraction_evaluate=evaluate)
    arrays = run(Coded(inner, budget_bytes=budget), grid, 20)
    # Flower's own bytes of a message: its metadata, names, metrics, config.
    own = 200 * len(grid.sizes)
    assert 0.9 * budget < total(grid) < budget + own
    assert np.isfinite(arrays["fc.weight"]).all()
    if budget == 300_000:
        assert distance(arrays) < 0.2 * distance(beginning())


def test_a_budget_of_joules_buys_what_the_radio_makes_of_it() -> None:
    def spent(budget_j: float, radio: str) -> int:
        grid = Grid(app_of(towards_target), NODES)
        run(Coded(FedAvg(), budget_j=budget_j, radio=radio), grid)
        return total(grid)

    assert spent(0.1, "wifi") < spent(0.3, "wifi")
    assert spent(60.0, "lte-m") < spent(60.0, "wifi")


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "two budgets": ({"budget_j": 1.0, "budget_bytes": 10}, "budget_j or budget_bytes, not both"),
    "a negative one": ({"budget_j": -1.0}, "budget_j: Input should be greater than 0"),
    "no bytes": ({"budget_bytes": 0}, "budget_bytes: Input should be greater than 0"),
    "an unknown radio": ({"budget_j": 1.0, "radio": "wify"}, "did you mean wifi?"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_asked_for(name: str) -> None:
    arguments, reason = WRONG[name]
    with pytest.raises(UserError, match=reason):
        Coded(FedAvg(), **arguments)


def test_a_budget_that_does_not_pay_for_a_round_says_what_does() -> None:
    with pytest.raises(UserError, match=r"budget_bytes = 500 bytes does not pay .* \d+ bytes$"):
        run(Coded(FedAvg(), budget_bytes=500), Grid(app_of(towards_target), 2))


def test_a_model_that_cannot_be_coded() -> None:
    trees = record_of({"model": np.frombuffer(b"trees", np.uint8)})
    with pytest.raises(UserError, match="no floating-point arrays"):
        Coded(FedAvg()).start(Grid(app_of(towards_target), 2), trees, num_rounds=1)
    with pytest.raises(UserError, match="takes a strategy"):
        Coded("FedAvg")


def test_a_strategy_with_a_start_of_its_own_runs_it() -> None:
    class Own(FedAvg):  # type: ignore[misc]
        started = 0

        def start(self, *arguments: Any, **options: Any) -> Any:
            self.started += 1
            return super().start(*arguments, **options)

    inner, grid = Own(), Grid(app_of(towards_target), 2)
    run(Coded(inner), grid, 3)
    assert inner.started == 1
    assert max(down for _, down, _ in grid.sizes[4:]) < 4 * TARGET.size / 5
    # Used again without, it is what it was.
    assert "configure_train" not in vars(inner)


def test_a_run_begins_anew_with_nodes_that_hold_another_runs_model() -> None:
    grid = Grid(app_of(towards_target), 3)
    run(Coded(FedAvg()), grid, 3)
    assert distance(run(Coded(FedAvg()), grid)) < 0.05
