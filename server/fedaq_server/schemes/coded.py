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
from dataclasses import dataclass, field, replace
from math import inf

from fedaq.codec.quantizer import RAW_BITS, Spread
from fedaq_server.schemes.code_lengths import Codes
from fedaq_server.schemes.coded_round import (
    SLACK,
    WORST_STEP,
    Ahead,
    PlannedRound,
    affordable_step,
    bytes_for,
    limits,
)
from fedaq_server.schemes.expected import (
    Expected,
    Longer,
    bisect,
    coarsest_step,
    downlink_step,
    expected,
    start_step,
    total,
)
from fedaq_server.schemes.optimizer import resolution
from fedaq_server.schemes.scheme import ClientState, Grant, Outcome, Plan, RoundState
from fedaq_server.schemes.spending import (
    LAST_SHARE,
    least_j,
    left_j,
    round_budget,
    round_share,
    rounds_worth,
    too_small,
)
from fedaq_server.schemes.spreads import arrays
from fedaq_server.schemes.step_grants import (
    downlink_grant,
    foreseen,
    mean_power,
    updates,
    uplink_grant,
)

log = logging.getLogger(__name__)

# docs/research/budget-constants.md: what other values do.
# A round in which the noise in the mean update exceeds this multiple of its mean square is
# worth less than it costs.
DROWNED = 2.0
# So it is for the first rounds. Then it is raised, by so much at a time, while the test's loss
# falls and updates do not grow, and lowered where those grow or, by twice that, the loss does, each
# by a tenth.
EASED, RISEN = 1.6, 1.1
LEAST_DROWNED, MOST_DROWNED = 0.5, 5.0
# Statistics change by orders of magnitude in the first round. Their steps are so many times finer
# in it where so few more are to come that their errors may last.
FIRST_FINER, FEW = 16.0, 3.0
# What is left at the end is told if it is more than this share.
UNSPENT = 0.03
# Weight of the newest length of what a sender sent.
SMOOTHING = 0.5


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
    owed_j : float
        What clients lack that were not drawn.
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
    owed_j: float = 0.0
    _round: PlannedRound | None = None
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
        now = self._expected(state)
        start_j = now.start_j()
        if start_j > left - headers_j:
            raise too_small(
                self.budget_j,
                "does not pay for the model that the run begins with, which clients lack: that "
                f"takes {start_j:.6g} J",
            )
        left -= start_j
        ahead = self._ahead(state, left)
        now, rounds, dearest, round_j = ahead.expected, ahead.rounds, ahead.dearest, ahead.round_j
        self._most_price, is_relay = dearest, self._least_price > 0
        pays = rounds >= 1 or state.round == 1 or LAST_SHARE * left >= now.round_j(ahead.worst)
        if not (pays or is_relay):
            self._unpaid(state, round_j)
            return None
        rounds, left = max(1, rounds), max(left - ahead.owed_j, headers_j)
        if state.round == 2 and rounds < state.rounds - 1:
            self._say_what_would_do(state, rounds, round_j)
        share_j = round_share(left, rounds, state)
        # A relay knows neither how many rounds are left nor what they are to take.
        is_last = rounds == 1 and not is_relay
        price = max(bisect(now.round_j, share_j), self._least_price)
        price = min(price, ahead.worst if is_last else dearest)
        down_j, up_j = now.down_j(price), now.up_j(price)
        round_j, before_j = now.round_j(price), ahead.owed_j + start_j + state.catch_up_j
        share_j = down_j + total(up_j) if is_relay else share_j
        down_limit_j, slack = limits(now, share_j, left + start_j - headers_j, price)
        self._round = PlannedRound(
            expected=now,
            is_last=is_last,
            price=price,
            coarsest=ahead.coarsest,
            absent_j_per_bit=state.absent_j_per_bit,
            left_j=left - headers_j,
            shares_j=dict(zip(state.clients, up_j.tolist(), strict=True)),
            limits_j=dict(zip(state.clients, (slack * up_j).tolist(), strict=True)),
        )
        step = start_step(state) if start_j else downlink_step(now.state, price)
        down = downlink_grant(state, step)
        limit = bytes_for(down_limit_j, state.downlink_j_per_bit)
        return Plan(
            Grant(down.bits, down.steps, limit),
            foreseen(state, now.updates.spreads, now.up_steps(price)),
            price,
            forecast_j=min(round_budget(round_j, rounds, state), left) + before_j,
        )

    def grant(
        self, state: RoundState, plan: Plan, client: ClientState, ranges: tuple[Spread, ...]
    ) -> Grant:
        """Give the client the step of the price, and its limit."""
        now = self._round
        assert now is not None
        sent = updates(arrays(ranges), state, client.weight, client.reports)
        step = resolution(plan.price, client.radio.uplink_j_per_bit, client.weight**2)
        share_j, longer = now.shares_j[client.name], self.longer.get(client.name, 1.0)
        if now.expected.is_first:
            # Nothing was known of the updates, so nothing of the price.
            coarsest = coarsest_step(state, client, sent, self.tolerance, inf)
            if now.later_rounds(client, sent, coarsest) < FEW:
                sent = replace(sent, fine_step=sent.fine_step / FIRST_FINER)
            step = now.first_step(client, sent, coarsest)
        elif now.is_last:
            step = min(affordable_step(client, sent, share_j, longer), WORST_STEP * step)
        else:
            # Where updates have shrunk, the price lets noise drown them.
            bearable = coarsest_step(state, client, sent, self.tolerance, step)
            if bearable < step:
                most_j = max(now.limits_j[client.name] / SLACK * 2, share_j)
                step = min(step, max(bearable, affordable_step(client, sent, most_j, longer)))
        now.sent[client.name] = sent.codes(step)
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
        self._owe(outcome, now)
        self._judge(outcome, state)
        rest_j = self.budget_j - self.spent_j
        if state.round == state.rounds and rest_j > UNSPENT * self.budget_j and now.is_last:
            log.warning(
                "energy.budget_j = %.6g J: %.3g J are left after all %d rounds, for the last took "
                "less than was kept for it",
                self.budget_j, rest_j, state.rounds,
            )  # fmt: skip

    def _expected(self, state: RoundState) -> Expected:
        longer = Longer(self.longer, self.longer_down)
        return expected(state, longer, self.tolerance)

    def _ahead(self, state: RoundState, left: float) -> Ahead:
        """Return what is ahead, with the most rounds that `left` joules pay for.

        The more rounds there are, the more clients come back in them and take what they missed.
        """
        fewest, most = 1, state.rounds - state.round + 1
        ahead = self._of_rounds(state, left, most)
        if not state.absent_j_per_bit or ahead.rounds >= most:
            return ahead
        ahead = self._of_rounds(state, left, fewest)
        while most - fewest > 1:
            rounds = (fewest + most) // 2
            found = self._of_rounds(state, left, rounds)
            if found.rounds >= rounds:
                ahead, fewest = found, rounds
            else:
                most = rounds
        return replace(ahead, rounds=min(ahead.rounds, fewest))

    def _of_rounds(self, state: RoundState, left: float, rounds: int) -> Ahead:
        """Return what is ahead if so many rounds are to come, this one among them."""
        back = 1 - (1 - state.drawn) ** (rounds - 1)
        owed_j = back * self._still_owed_j(state)
        state = replace(state, absent_j_per_bit=back * state.absent_j_per_bit)
        now = self._expected(state)
        # Above this price noise would drown what is sent: fewer and better rounds are run.
        dearest, coarsest = self._dearest(now)
        dearest = min(dearest, *(client.most_price for client in state.clients.values()))
        # The last round may be worse than that, rather than much be left.
        worst = WORST_STEP**2 * dearest
        if self.last_step:
            # It took all that was left, but for what it was expected to. A coarser one undoes it.
            worst = dearest = min(dearest, (self.last_step / downlink_step(state, 1.0)) ** 2)
        round_j = now.round_j(dearest)
        worth = rounds_worth(state, left - owed_j, round_j)
        return Ahead(now, owed_j, dearest, worst, coarsest, round_j, worth)

    def _owe(self, outcome: Outcome, now: PlannedRound) -> None:
        """Take note of what clients lack that were not drawn, less what was made up for."""
        if not now.absent_j_per_bit:
            return
        state = now.expected.state
        missed = 8 * (outcome.downlink_bytes or 0)
        # Who lacks more than the whole model is sent that.
        most_j = RAW_BITS * state.spec.parameters * now.absent_j_per_bit
        owed_j = self._still_owed_j(state) + missed * now.absent_j_per_bit
        self.owed_j = min(owed_j, most_j)

    def _still_owed_j(self, state: RoundState) -> float:
        """Return what clients lack once those of a round have been sent what they missed."""
        return max(self.owed_j - state.catch_up_j, 0.0)

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


def _smoothed(before: float | None, now: float) -> float:
    return float(now if before is None else before ** (1 - SMOOTHING) * now**SMOOTHING)
