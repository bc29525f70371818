"""Rounds as a scheme sees them."""

from fedaq.codec.model import ModelSpec, TensorSpec
from fedaq.codec.quantizer import Spread
from fedaq.energy.cost import RadioCost
from fedaq.settings import Settings, load_settings
from fedaq_server.schemes.scheme import (
    ClientState,
    Outcome,
    Plan,
    RoundState,
    Scheme,
)

SPEC = ModelSpec((TensorSpec("weight", (3, 4)), TensorSpec("bias", (3,))))
RADIO = RadioCost(1e-7, 1e-7)


def ranges(*widths: float) -> tuple[Spread, ...]:
    return tuple(Spread(-width / 2, width / 2, 0.0, width / 6) for width in widths)


def settings(*assignments: str) -> Settings:
    return load_settings(environment={}, assignments=assignments)


def state(
    number: int = 1,
    *,
    weights: tuple[float, ...] = (0.5, 0.5),
    last: tuple[Spread, ...] | None = None,
) -> RoundState:
    clients = {
        f"client-{i}": ClientState(f"client-{i}", weight, RADIO, last)
        for i, weight in enumerate(weights)
    }
    return RoundState(number, 10, SPEC, ranges(1.0, 1.0), clients, 1e-7, ranges(1.0, 1.0))


def outcome(loss: float, number: int = 1, widths: tuple[float, float] = (1.0, 1.0)) -> Outcome:
    seen = {"client-0": ranges(*widths)}
    return Outcome(number, 0.5, 1.0, loss, seen, 0.1, {"client-0": 100})


def nobody_reported(number: int = 1) -> Outcome:
    return Outcome(number, 0.5, 1.0, 0.0, {}, 0.1, {})


def planned(scheme: Scheme, now: RoundState | None = None) -> Plan:
    plan = scheme.plan(now or state())
    assert plan is not None
    return plan
