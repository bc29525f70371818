"""Simulated federations, in which values are drawn, coded and counted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random

import numpy as np

from fedaq.codec import payload
from fedaq.codec.model import ModelSpec, TensorSpec
from fedaq.codec.quantizer import Floats, Spread, tensor_spread
from fedaq.energy.cost import RadioCost, downlink_j_per_bit
from fedaq_server.schemes.coded import CodedBudget
from fedaq_server.schemes.scheme import (
    ClientState,
    Grant,
    Outcome,
    Plan,
    RoundState,
    granted_down,
    granted_up,
)

SPEC = ModelSpec((TensorSpec("w1", (64, 50)), TensorSpec("b1", (50,)), TensorSpec("w2", (50, 10))))
HEADER_BYTES = 4 * len(SPEC.tensors)
RADIO = RadioCost(1e-7, 1e-7, 3e-8)
Shares = Sequence[float]


@dataclass(frozen=True)
class Simulation:
    """What a run looks like to a scheme; the values that are sent are normal.

    Attributes
    ----------
    update_growth, difference_growth : float
        Factors from round to round.
    fading : float
        Each round multiplies each radio's costs by a factor between 1 and this.
    lengths : callable, optional
        Takes what a transfer is expected to take, and what it may take at the most, and returns
        what it takes; by default what is expected, if it may.
    catch_up : float
        Chance that a round brings somebody up to date.
    """

    rounds: int = 12
    shares: Shares = (0.5, 0.3, 0.2)
    radios: Sequence[RadioCost] = (RADIO, RADIO, RADIO)
    update_growth: float = 0.92
    difference_growth: float = 0.95
    broadcast: bool = False
    fading: float = 1.0
    lost_before_grant: float = 0.0
    lost_after_grant: float = 0.0
    differences: bool = True
    catch_up: float = 0.0
    seed: int = 0
    lengths: Callable[[Random, int, int], int] | None = None

    def update(self, number: int, client: int) -> Floats:
        return self._drawn(0.03 * self.update_growth**number * (1 + 0.2 * client), number, client)

    def going_down(self, number: int) -> Floats:
        if self.differences:
            scale = 0.03 * self.difference_growth**number if number > 1 else 0.0
        else:
            scale = 0.3
        return self._drawn(scale, number, -1)

    def _drawn(self, scale: float, number: int, sender: int) -> Floats:
        rng = np.random.default_rng([self.seed, number, sender + 1])
        return (scale * rng.standard_normal(SPEC.parameters)).astype(np.float32)

    def state(self, number: int, seen: dict[str, tuple[Spread, ...]]) -> RoundState:
        random = Random(f"{self.seed} {number}")
        radios = [self._faded(radio, random) for radio in self.radios]
        clients = {
            f"client-{i}": ClientState(f"client-{i}", share, radio, seen.get(f"client-{i}"))
            for i, (share, radio) in enumerate(zip(self.shares, radios, strict=True))
        }
        down = self.going_down(number)
        caught_up = random.random() < self.catch_up
        return RoundState(
            round=number,
            rounds=self.rounds,
            spec=SPEC,
            downlink_ranges=spreads(down),
            clients=clients,
            # Who needs the whole model does not need the difference.
            downlink_j_per_bit=downlink_j_per_bit(radios[caught_up:], broadcast=self.broadcast),
            first_ranges=spreads(self._drawn(0.3, 0, -1)),
            downlink_samples=tuple(SPEC.split(down)),
            differences=self.differences,
            catch_up_j=caught_up
            * 8
            * 4
            * SPEC.parameters
            * downlink_j_per_bit(radios[:1], broadcast=False),
        )

    def _faded(self, radio: RadioCost, random: Random) -> RadioCost:
        factor = 1 + (self.fading - 1) * random.random()
        return RadioCost(
            radio.uplink_j_per_bit * factor,
            radio.downlink_j_per_bit * factor,
            radio.receive_j_per_bit * factor,
        )

    def bit_j(self) -> float:
        """What one bit for each value costs in both directions, without fading."""
        down = downlink_j_per_bit(self.radios, broadcast=self.broadcast)
        return SPEC.parameters * (down + sum(radio.uplink_j_per_bit for radio in self.radios))


def spreads(flat: Floats) -> tuple[Spread, ...]:
    return tuple(map(tensor_spread, SPEC.split(flat)))


def expected_bytes(flat: Floats, grant: Grant, *, nearest: bool) -> int:
    """Return headers and the entropy of the codes."""
    bits = 0.0
    for values, width, step in zip(SPEC.split(flat), grant.bits, grant.steps, strict=True):
        if width == 0:
            bits += 8 * 4
            continue
        position = values.astype(np.float64) / step
        noise = 0.5 if nearest else np.random.default_rng(3).random(values.size)
        _, counts = np.unique(np.floor(position + noise), return_counts=True)
        shares = counts / values.size
        bits += 8 * 14 - values.size * float(shares @ np.log2(shares))
    return int(bits / 8)


@dataclass
class Done:
    """A round that was run."""

    state: RoundState
    plan: Plan
    grants: dict[str, Grant] = field(default_factory=dict)
    uplink_bytes: dict[str, int] = field(default_factory=dict)
    downlink_bytes: int = 0
    energy_j: float = 0.0


def run(simulation: Simulation, budget_j: float) -> list[Done]:
    scheme = CodedBudget(budget_j)
    random = Random(simulation.seed)
    seen: dict[str, tuple[Spread, ...]] = {}
    done: list[Done] = []

    def taken(flat: Floats, grant: Grant, ranges: tuple[Spread, ...], *, nearest: bool) -> int:
        """What it takes: never more than packed, nor than the limit or bare headers."""
        planned = payload.plan_payload(SPEC, grant.bits, ranges, grant.steps)
        assert grant.limit_bytes is not None
        most = max(HEADER_BYTES, min(planned.payload_bytes, grant.limit_bytes))
        usual = expected_bytes(flat, grant, nearest=nearest)
        if simulation.lengths is None:
            return min(usual, most)
        return min(max(simulation.lengths(random, usual, most), HEADER_BYTES), most)

    for number in range(1, simulation.rounds + 1):
        state = simulation.state(number, seen)
        plan = scheme.plan(state)
        if plan is None:
            break
        now = Done(state, replace(plan, downlink=granted_down(plan.downlink, state)))
        now.downlink_bytes = taken(
            simulation.going_down(number), now.plan.downlink, state.downlink_ranges,
            nearest=simulation.differences,
        )  # fmt: skip
        now.energy_j = state.downlink_j_per_bit * 8 * now.downlink_bytes + state.catch_up_j
        arrived = {}
        for i, (name, client) in enumerate(state.clients.items()):
            if random.random() < simulation.lost_before_grant:
                continue
            flat = simulation.update(number, i)
            ranges = spreads(flat)
            grant = granted_up(scheme.grant(state, plan, client, ranges), ranges, SPEC)
            now.grants[name] = grant
            took = taken(flat, grant, ranges, nearest=False)
            if random.random() < simulation.lost_after_grant:
                # Charged as if all that it was told to send had been sent.
                planned = payload.plan_payload(SPEC, grant.bits, ranges, grant.steps)
                took = max(HEADER_BYTES, min(planned.payload_bytes, grant.limit_bytes or 0))
            else:
                arrived[name] = ranges
                now.uplink_bytes[name] = took
            now.energy_j += client.radio.uplink_j_per_bit * 8 * took
        seen |= arrived
        done.append(now)
        scheme.learn(Outcome(number, 0.5, 1.0, 1.0, arrived, now.energy_j, now.uplink_bytes))
    return done


def spent_j(rounds: list[Done]) -> float:
    return sum(done.energy_j for done in rounds)
