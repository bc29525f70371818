"""What a viewer is told: what changed since, and how a run is expected to end."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedaq_server.dashboard.live import (
    CLIENTS_SHOWN,
    MOST_KEPT,
    POINTS,
    RECENT,
    ClientView,
    Forecast,
    Point,
    Status,
    Sums,
    View,
    bounded,
    changes,
    flat,
    forecast,
    thinned,
)

BASE = View(0.0, {"task": "digits"}, Status("waiting", 1))


def point(number: int, energy_j: float = 0.0) -> Point:
    return (number, 0.5, 0.5, 0.5, 1.0, 1.0, energy_j, 10, 10, 5, 0, 0.1)


def merged(state: dict[str, Any], message: Mapping[str, Any]) -> dict[str, Any]:
    """Do what the page does with a message (static/live.js)."""
    new = {"points": [], "clients": {}} if "run" in message else dict(state)
    new["points"] = [*new["points"], *message.get("points", ())]
    for name in ("status", "forecast", "counts"):
        if name in message:
            new[name] = message[name]
    new["clients"] = dict(new["clients"])
    for name, values in message.get("clients", {}).items():
        if values is None:
            del new["clients"][name]
        else:
            new["clients"][name] = {**new["clients"].get(name, {}), **values}
    return new


@st.composite
def views(draw: st.DrawFn) -> list[View]:
    """Draw what follows one another: rounds are added, clients come, change and go."""
    shown, done = [], 0
    for at in range(draw(st.integers(1, 6))):
        done += draw(st.integers(0, 2))
        names = draw(st.sets(st.sampled_from([f"c{number:03}" for number in range(8)])))
        clients = {
            name: ClientView(
                draw(st.sampled_from(["training", "lost"])), refusals=draw(st.integers(0, 1))
            )
            for name in sorted(names)
        }
        ahead = draw(st.none() | st.builds(Forecast, st.just(1.5), st.just("scheme")))
        phase = draw(st.sampled_from(["waiting", "training"]))
        points = tuple(point(number) for number in range(1, done + 1))
        shown.append(View(float(at), BASE.run, Status(phase, done + 1), points, ahead, clients))
    return shown


@given(views(), st.integers(0, 3))
def test_changes_one_after_another_amount_to_the_last_view(shown: list[View], first: int) -> None:
    state, before = dict[str, Any](), None
    for view in shown:
        state = merged(state, json.loads(json.dumps(changes(before, view, first))))
        before = view
    whole = merged({}, json.loads(json.dumps(changes(None, shown[-1], first))))
    if shown[-1].forecast is None:  # one that was there is not taken back
        state.pop("forecast", None)
    assert state == whole
    assert list(state["clients"]) == sorted(state["clients"]) or before is not None


def test_nothing_is_said_where_nothing_changed() -> None:
    clients = {"a": ClientView("training")}
    now = replace(BASE, clients=clients)
    assert changes(now, replace(now, at=5.0)) == {}
    changed = replace(now, clients={"a": ClientView("sending")})
    assert changes(now, changed) == {"clients": {"a": {"state": "sending"}}}


def test_a_viewer_sees_a_part_of_many_clients_and_how_many_there_are_of_each_state() -> None:
    clients = {f"c{number:04}": ClientView("training") for number in range(1000)}
    now = replace(BASE, clients=clients)
    message = changes(None, now, first=200)
    assert list(message["clients"])[::99] == ["c0200", "c0299"]
    assert len(message["clients"]) == CLIENTS_SHOWN
    assert message["counts"] == {"training": 1000}
    elsewhere = {**clients, "c0000": ClientView("lost")}
    assert changes(now, replace(now, clients=elsewhere), first=200) == {
        "counts": {"training": 999, "lost": 1}
    }
    # One that is before the others moves them all by a place.
    fewer = {name: client for name, client in clients.items() if name != "c0000"}
    moved = changes(now, replace(now, clients=fewer), first=200)["clients"]
    device = {
        key: value for key, value in asdict(ClientView("training")).items() if key != "relayed"
    }
    assert moved == {"c0200": None, "c0300": device}
    relay = replace(ClientView("training"), relayed=0)
    there = changes(None, replace(now, clients={"relay": relay}))["clients"]
    assert there == {"relay": device | {"relayed": 0}}


@pytest.mark.parametrize("count", [0, 1, POINTS, POINTS + 1, 10 * POINTS + 3])
def test_a_long_run_is_thinned_and_its_last_round_kept(count: int) -> None:
    every = [point(number) for number in range(1, count + 1)]
    kept = thinned(every)
    assert len(kept) <= POINTS
    assert kept[-1:] == every[-1:]
    assert kept == sorted(kept)
    assert len(kept) >= min(count, POINTS // 2)


@pytest.mark.parametrize("count", [1, 300, 999, 1001, 5000])
def test_of_a_run_without_end_few_points_are_kept_in_even_steps(count: int) -> None:
    kept: tuple[Point, ...] = ()
    for number in range(1, count + 1):
        kept = bounded((*kept, point(number)))
        assert len(kept) <= MOST_KEPT
    rounds = [int(each[0] or 0) for each in kept]
    assert rounds[-RECENT - 1 :] == list(range(max(1, count - RECENT), count + 1))
    steps = [after - before for before, after in pairwise((0, *rounds))]
    # As good as what a page is sent of all of them.
    assert max(steps) <= max(1, count // POINTS + 1)


def test_who_looks_on_is_told_of_every_round_though_old_points_are_dropped() -> None:
    points = tuple(point(number) for number in range(1, MOST_KEPT + 1))
    before = View(0.0, BASE.run, BASE.status, points)
    now = replace(before, points=bounded((*points, point(MOST_KEPT + 1))))
    assert len(now.points) < len(before.points)
    assert [each[0] for each in changes(before, now)["points"]] == [MOST_KEPT + 1]


def test_points_hold_sums_and_no_number_that_json_has_not() -> None:
    record = {
        "round": 1, "test_accuracy": 0.123456789, "test_loss": float("inf"),
        "train_loss": float("nan"), "uplink_bits": 1.0, "downlink_bits": 2.0,
        "uplink_payload_bytes": 10, "downlink_payload_bytes": 20, "energy_j": 0.1,
        "clients": 5, "left_out": 1, "seconds": 0.1, "epsilon": 0.25,
    }  # fmt: skip
    sums = Sums("accuracy")
    first, second = sums.point(record), sums.point({**record, "round": 2})
    assert first == (1, 0.12346, None, None, 1.0, 2.0, 0.1, 10, 20, 5, 1, 0.1, 0.25)
    assert second[6:9] == (0.2, 20, 40)
    json.dumps([first, second], allow_nan=False)


def test_the_plan_of_the_scheme_is_the_forecast() -> None:
    assert forecast([point(1, 0.1)], 10, 1.25) == Forecast(1.25, "scheme")


def test_without_a_plan_the_recent_rounds_go_on() -> None:
    assert forecast([], 10, None) is None
    assert forecast([point(1, 0.5)], 10, None) == Forecast(5.0, "recent rounds")
    # The first rounds are dear, the last five cost 0.1 J each; eight are left.
    spent = [5.0, 10.0, *(10.0 + 0.1 * number for number in range(1, 11))]
    every = [point(number, energy_j) for number, energy_j in enumerate(spent, 1)]
    assert forecast(every, 20, None) == Forecast(pytest.approx(11.8), "recent rounds")  # type: ignore[arg-type]
    assert forecast(every, 12, None) == Forecast(11.0, "recent rounds")


def test_settings_have_dotted_names_and_words() -> None:
    nested = {"a": None, "b": {"c": True, "d": {"e": "x" * 500, "f": [1, 2]}}}
    assert flat(nested) == {"a": "-", "b.c": "true", "b.d.e": "x" * 100, "b.d.f": "[1, 2]"}
