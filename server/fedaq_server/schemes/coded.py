"""FedAQ where payloads are entropy-coded: a price of a joule in, quantization steps out.

With an entropy coder the KKT solution of FedAQ (arXiv 2406.18156) needs no whole bits: at
one price, the quantization step of every tensor, client and round is the resolution
``r = sqrt(lambda e / (2 ln2 c))`` itself, and lengths follow by themselves. The price is found anew
in every round, so that this round, at the lengths to be expected, takes its share of what is left.

What a transfer really takes shows only when it is coded. So that nothing is overspent, each
sender has a limit, within which it stays by taking coarser steps.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from fedaq.codec.quantizer import MAX_BITS, RAW_BITS, Spread
from fedaq_server.schemes.code_lengths import Codes
from fedaq_server.schemes.expected import (
    FIRST_SHARE,
    Expected,
    Longer,
    bisect,
    coarsest_step,
    downlink_step,
    expected,
    start_step,
    step_for,
    total,
)
from fedaq_server.schemes.optimizer import resolution
from fedaq_server.schemes.scheme import ClientState, Grant, Outcome, Plan, RoundState
from fedaq_server.schemes.spending import (
    LAST_SHARE,
    ROUNDED,
    header_bytes,
    least_down_bytes,
    least_j,
    left_j,
    round_share,
    rounds_worth,
    too_small,
)
from fedaq_server.schemes.spreads import arrays
from fedaq_server.schemes.step_grants import (
    Updates,
    downlink_grant,
    foreseen,
    mean_power,
    updates,
    uplink_grant,
)

log = logging.getLogger(__name__)

# docs/research/budget-constants.md: what other values do, of all down to `SMOOTHING`.
# A round in which the noise in the mean update exceeds this multiple of its mean square is
# worth less than it costs.
DROWNED = 2.0
# So it is for the first rounds. Then it is raised, by so much at a time, while the test's loss
# falls and updates do not grow, and lowered where those grow or, by twice that, the loss does, each
# by a tenth.
EASED, RISEN = 1.6, 1.1
LEAST_DROWNED, MOST_DROWNED = 0.5, 5.0
# A transfer may exceed so many times what was expected of it, while the budget lasts,
# before its limit acts.
SLACK = 3.0
# Weight of the newest length of what a sender sent.
SMOOTHING = 0.5

# The step of the last round may be so many times the coarsest that is bearable.
_WORST_STEP = 2.0
# Of a bit: less is nothing.
_LEAST_J = 1e-300


@dataclass
class CodedBudget:
    """Steps from a price, and the price from what is left of a budget.

    What goes down is at hand, so a sample of it tells how long its codes will be. An update
    is not: it is expected to be like the last. How much longer codes are than the entropy that is
    expected of them is learned from round to round.

    Attributes
    ----------
    budget_j : float
        For the whole run.
    spent_j : float
        In the rounds so far.
    longer : dict of str to float
        How many times what was expected of them the codes of each client took, smoothed.
    longer_down : float
        The same of what went down.
    tolerance : float
        How many times its mean square the noise in the mean update may be.
    least_loss : float
        Of all tests.
    power : float
        Mean sum of squares of the last updates.
    coarsest : float
        The step of what goes down at which noise would drown updates, smoothed; 0 before one was
        seen.
    last_step : float
        That of a round that was taken for the last too early; 0 before one was.
    """

    budget_j: float
    spent_j: float = 0.0
    longer: dict[str, float] = field(default_factory=dict)
    longer_down: float = 1.0
    tolerance: float = field(default_factory=lambda: DROWNED)
    least_loss: float = inf
    power: float = 0.0
    coarsest: float = 0.0
    last_step: float = 0.0
    _round: "_Round | None" = None
    _least_price: float = 0.0  # of a relay: what its own server has found
    _most_price: float = 0.0

    def plan(self, state: RoundState) -> Plan | None:
        """Find the price, the downlink step and every client's limit.

        Raises
        ------
        UserError
            If the budget does not pay for a round.
        """
        left = left_j(self.budget_j, self.spent_j, state)
        headers_j = least_j(state)
        if left < headers_j:
            self._unpaid(state, headers_j)
            return None
        now = expected(state, Longer(self.longer, self.longer_down), self.tolerance)
        start_j = now.start_j()
        if start_j > left - headers_j:
            raise too_small(
                self.budget_j,
                "does not pay for the model that the run begins with, which clients lack: that "
                f"takes {start_j:.6g} J",
            )
        left -= start_j
        # Above this price noise would drown what is sent: fewer and better rounds are run.
        dearest, coarsest = self._dearest(now)
        dearest = min(dearest, *(client.most_price for client in state.clients.values()))
        self._most_price, is_relay = dearest, self._least_price > 0
        # The last round may be worse than that, rather than much be left.
        worst = _WORST_STEP**2 * dearest
        if self.last_step:
            # It took all that was left, but for what it was expected to. A coarser one undoes it.
            worst = dearest = min(dearest, (self.last_step / downlink_step(state, 1.0)) ** 2)
        round_j = now.round_j(dearest)
        rounds = rounds_worth(state, left, round_j)
        pays = rounds >= 1 or state.round == 1 or LAST_SHARE * left >= now.round_j(worst)
        if not (pays or is_relay):
            self._unpaid(state, round_j)
            return None
        rounds = max(1, rounds)
        if state.round == 2 and rounds < state.rounds - 1:
            self._say_what_would_do(state, rounds, round_j)
        share_j = round_share(left, rounds, state)
        # A relay knows neither how many rounds are left nor what they are to take.
        is_last = rounds == 1 and not is_relay
        price = max(bisect(now.round_j, share_j), self._least_price)
        price = min(price, worst if is_last else dearest)
        down_j, up_j = now.down_j(price), now.up_j(price)
        share_j = down_j + total(up_j) if is_relay else share_j
        down_limit_j, slack = _limits(now, share_j, left + start_j - headers_j, price)
        self._round = _Round(
            expected=now,
            is_last=is_last,
            price=price,
            coarsest=coarsest,
            left_j=left - headers_j,
            shares_j=dict(zip(state.clients, up_j.tolist(), strict=True)),
            limits_j=dict(zip(state.clients, (slack * up_j).tolist(), strict=True)),
        )
        step = start_step(state) if start_j else downlink_step(state, price)
        down = downlink_grant(state, step)
        limit = _bytes(down_limit_j, state.downlink_j_per_bit)
        return Plan(
            Grant(down.bits, down.steps, limit),
            foreseen(state, now.updates.spreads, now.up_steps(price)),
            price,
            forecast_j=min(rounds * (down_j + total(up_j)), left) + start_j + state.catch_up_j,
        )

    def grant(
        self, state: RoundState, plan: Plan, client: ClientState, ranges: tuple[Spread, ...]
    ) -> Grant:
        """Give the client the step of the price, and its limit."""
        now = self._round
        assert now is not None
        sent = updates(arrays(ranges), state, client.weight)
        step = resolution(plan.price, client.radio.uplink_j_per_bit, client.weight**2)
        share_j, longer = now.shares_j[client.name], self.longer.get(client.name, 1.0)
        if now.expected.is_first:
            # Nothing was known of the updates, so nothing of the price.
            step = now.first_step(client, sent)
        elif now.is_last:
            step = min(_step_for(client, sent, share_j, longer), _WORST_STEP * step)
        else:
            # Where updates have shrunk, the price lets noise drown them.
            bearable = coarsest_step(state, client, sent, self.tolerance, step)
            if bearable < step:
                most_j = max(now.limits_j[client.name] / SLACK * 2, share_j)
                step = min(step, max(bearable, _step_for(client, sent, most_j, longer)))
        codes = sent.codes(step)
        now.sent[client.name] = codes
        chosen = uplink_grant(sent, step)
        return Grant(chosen.bits, chosen.steps, now.limit_bytes(client))

    def learn(self, outcome: Outcome) -> None:
        """Take note of what was spent, and of how long codes were."""
        now = self._round
        assert now is not None
        self.spent_j += outcome.energy_j
        self._learn_lengths(outcome, now.sent, now.down_codes())
        self.coarsest = now.coarsest
        state = now.expected.state
        if now.is_last and not now.expected.is_first and state.round < state.rounds:
            self.last_step = downlink_step(state, now.price)
        self._judge(outcome, state)

    def _dearest(self, now: Expected) -> tuple[float, float]:
        """Return the price above which noise would drown what is sent, and its downlink step.

        One round alone whose updates are small is no reason to run far fewer.
        """
        price = now.dearest
        step = downlink_step(now.state, price)
        if now.is_first:
            return price, 0.0
        usual = _smoothed(self.coarsest or step, step)
        return price * (usual / step) ** 2, usual

    def _learn_lengths(
        self, outcome: Outcome, sent: Mapping[str, Codes], down: Codes | None
    ) -> None:
        for name, taken in outcome.uplink_bytes.items():
            times = sent[name].longer(8 * taken)
            if times is not None:
                self.longer[name] = _smoothed(self.longer.get(name), times)
        taken_down = outcome.downlink_bytes
        times = None if down is None or taken_down is None else down.longer(8 * taken_down)
        if times is not None:
            self.longer_down = _smoothed(self.longer_down, times)

    def _judge(self, outcome: Outcome, state: RoundState) -> None:
        """Bear more noise where training goes on in spite of it, less where it does not."""
        loss, least = outcome.test_loss, self.least_loss
        # Noise that clients have to undo makes their updates larger.
        power, before = mean_power(state, outcome.update_ranges), self.power
        if loss < least:
            self.least_loss = loss
            if power < before:
                self.tolerance = min(EASED * self.tolerance, MOST_DROWNED)
            elif power > RISEN * before:
                self.tolerance = max(self.tolerance / EASED, min(self.tolerance, DROWNED))
        elif not loss < RISEN * least and least < inf:
            self.tolerance = max(self.tolerance / EASED**2, LEAST_DROWNED)
        self.power = power

    def _unpaid(self, state: RoundState, round_j: float) -> None:
        """End the run, and say why."""
        if state.round > 1:
            log.warning(
                "energy.budget_j = %.6g J ends the run after %d of %d rounds: %.3g J are left, and "
                "one more takes %.3g J",
                self.budget_j, state.round - 1, state.rounds,
                max(self.budget_j - self.spent_j, 0.0), round_j + state.catch_up_j,
            )  # fmt: skip
            return
        parts = "its headers and the models that clients lack take"
        raise too_small(
            self.budget_j,
            "does not pay for one round: "
            f"{parts if state.catch_up_j else 'its headers alone take'} "
            f"{round_j + state.catch_up_j:.6g} J",
        )

    def _say_what_would_do(self, state: RoundState, rounds: int, round_j: float) -> None:
        log.warning(
            "energy.budget_j = %.6g J pays for about %d of %d rounds whose noise training bears; "
            "about %.2g J would pay for all",
            self.budget_j, rounds + state.round - 1, state.rounds,
            self.spent_j + (state.rounds - state.round + 1) * round_j,
        )  # fmt: skip


@dataclass(frozen=True)
class _Round:
    """What was decided when a round began, and while it went on.

    Attributes
    ----------
    is_last : bool
        Whether all that is left is to be spent.
    coarsest : float
        As `CodedBudget.coarsest`.
    left_j : float
        What is left for this round and all later ones.
    shares_j, limits_j : mapping of str to float
        What each update is expected to take, and what it may take.
    sent : dict of str to Codes
        What was granted.
    """

    expected: Expected
    is_last: bool
    price: float
    coarsest: float
    left_j: float
    shares_j: Mapping[str, float]
    limits_j: Mapping[str, float]
    sent: dict[str, Codes] = field(default_factory=dict)

    def limit_bytes(self, client: ClientState) -> int:
        """Return what an update may take."""
        limit = _bytes(self.limits_j[client.name], client.radio.uplink_j_per_bit)
        return header_bytes(self.expected.state) + limit

    def first_step(self, client: ClientState, sent: Updates) -> float:
        """Return the step of an update where none was seen before.

        It is as fine as the budget of the whole run makes it, if all updates are like this one.
        """
        state, share = self.expected.state, self.shares_j[client.name] / sum(self.shares_j.values())
        coarsest = coarsest_step(state, client, sent, self.expected.tolerance, inf)
        least_j = client.radio.uplink_j_per_bit * float(sent.codes(coarsest).total(1.0))
        if state.differences:
            first, later = 1.0, 1 / FIRST_SHARE
        else:
            down_j = self.expected.down_j(self.price)
            first = later = 1 + down_j / max(sum(self.shares_j.values()), _LEAST_J)
        left = share * self.left_j / max(least_j, _LEAST_J)
        rounds = max(0, min(state.rounds - state.round, int((left - first) / later + ROUNDED)))
        share_j = share * self.left_j / (first + rounds * later)
        if rounds == 0:
            share_j *= LAST_SHARE
        return min(_step_for(client, sent, share_j, 1.0), _WORST_STEP * coarsest)

    def down_codes(self) -> Codes | None:
        """Return what went down; None if nothing did, or a start."""
        state = self.expected.state
        if self.expected.is_first and state.differences:
            return None
        return self.expected.down_codes(downlink_step(state, self.price))


def _step_for(client: ClientState, sent: Updates, joules: float, longer: float) -> float:
    """Return the step with which an update takes so many joules."""
    return step_for(sent, joules / max(client.radio.uplink_j_per_bit, _LEAST_J), longer)


def _smoothed(before: float | None, now: float) -> float:
    return float(now if before is None else before ** (1 - SMOOTHING) * now**SMOOTHING)


def _limits(now: Expected, share_j: float, spare_j: float, price: float) -> tuple[float, float]:
    """Return what may go down, in joules, and how many times what is expected may come up.

    Every sender can pay for its headers, and nobody for more than what is left then: `spare_j`
    joules. `share_j` is what the round is to take.
    """
    state, up_j = now.state, total(now.up_j(price))
    header_j = 8 * least_down_bytes(state) * state.downlink_j_per_bit
    if now.is_first and state.differences:
        # But for a start, nothing goes down. Updates may take all, if there is to be one round.
        down_j = min(SLACK * now.start_j(), spare_j)
        return header_j + down_j, (spare_j - down_j) / up_j
    # More than it can take is of no use to what goes down, and updates would lack it.
    widest = MAX_BITS if state.differences else RAW_BITS
    most_j = widest * state.spec.parameters * state.downlink_j_per_bit
    down_j = max(0.0, min(max(SLACK * now.down_j(price), share_j), spare_j - up_j, most_j))
    spare_j -= down_j
    return header_j + down_j, min(max(SLACK, share_j / up_j), spare_j / up_j)


def _bytes(joules: float, j_per_bit: float) -> int:
    return int(joules / (8 * j_per_bit)) if j_per_bit > 0 else 2**62
