"""FedAQ where all updates of a round are on one grid, as secure aggregation needs it.

The grid is chosen before anybody trains, from what earlier rounds showed of all updates together.
Masked codes cannot be entropy-coded, so a part of the values is sent (`masked_choice`), whether
they are masked or not: masks change nothing but the price. What a masked round takes is known when
it begins, so it is run if every budget pays for it, and what goes down stays within the rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import floor, inf

from fedaq.codec.common_grid import LEAST_STEP, grid_code
from fedaq.codec.model import Kind
from fedaq.codec.payload import ZERO, Payload, TensorCode
from fedaq.codec.quantizer import MAX_BITS, Spread
from fedaq.codec.subset import Subset
from fedaq.energy.budgets import JOULES, byte_price
from fedaq.energy.cost import RadioCost, downlink_j_per_bit
from fedaq.errors import UserError
from fedaq.privacy.layout import WIDEST_CODES
from fedaq.settings.schemes import CODED_UPLINK
from fedaq_server.accounts import Purse
from fedaq_server.schemes import masked_choice
from fedaq_server.schemes.code_lengths import root_mean_square
from fedaq_server.schemes.expected import FIRST_UPDATE, downlink_step, start_step
from fedaq_server.schemes.masked_bytes import Bytes, key_bytes, masked_bytes
from fedaq_server.schemes.masked_choice import (
    LARGEST_REACH,
    REACH,
    Choice,
    Limit,
    best_choice,
    best_within,
    candidates,
)
from fedaq_server.schemes.scheme import ClientState, Grant, Outcome, Plan, RoundState
from fedaq_server.schemes.spending import least_down_bytes, round_share, rounds_paid
from fedaq_server.schemes.step_grants import downlink_grant


@dataclass
class CommonGrid:
    """One step per direction, a power of two upward, and ranges from the last updates.

    Attributes
    ----------
    uplink, downlink : float, optional
        The steps, in the unit of the weights, with which every value is sent; None if both, and
        which values are sent, follow from what a joule gains.
    masked : bool
        Whether updates are masked, by keys whose proofs take `_proof_bytes` at the most.
    seed : int
        Of the run.
    widths : list of float
        Per tensor: the root mean square of the last round's updates.
    least_loss : float
        Of all tests.
    most_noise : float
        In the mean update that training bears.
    """

    uplink: float | None
    downlink: float | None
    masked: bool = False
    seed: int = 0
    widths: list[float] = field(default_factory=list)
    least_loss: float = inf
    most_noise: float = field(default_factory=lambda: masked_choice.MOST_NOISE)
    _proof_bytes: int = 0

    def plan(self, state: RoundState) -> Plan | None:
        """Choose the grid, and end the run if a budget does not pay for the round.

        Raises
        ------
        UserError
            If none pays for the first.
        """
        most_bits = min(MAX_BITS, WIDEST_CODES - state.total_weight.bit_length())
        widths, release = self._expected(state), state.release
        choice = self._choice(state, widths, most_bits)
        if release is None:
            grid = _grid(state, widths, choice, most_bits)
        else:
            grid = release.grid(state.spec)
        taken = self._bytes(state, grid, choice)
        limit = inf
        for purse in state.purses:
            if not purse.client:
                limit = min(limit, _affordable(purse, state, taken))
        if limit < least_down_bytes(state):
            if state.round == 1:
                raise UserError(_too_small(state, taken))
            return None
        down = downlink_grant(state, self._down_step(state, choice))
        return Plan(
            Grant(down.bits, down.steps, None if limit == inf else floor(limit)),
            dict.fromkeys(state.clients, tuple(code.bits for code in grid)),
            price=choice.price,
            least_up_bytes={name: each.up for name, each in taken.items()},
            alone_bytes={name: each.down for name, each in taken.items()},
            grid=grid,
            one_in=choice.one_in,
        )

    def grant(
        self, state: RoundState, plan: Plan, client: ClientState, ranges: tuple[Spread, ...]
    ) -> Grant:
        """Grant the grid to whoever asks."""
        codes = plan.grid
        return Grant(tuple(code.bits for code in codes), tuple(code.step for code in codes))

    def learn(self, outcome: Outcome) -> None:
        """Note how wide the updates were, and whether their noise is borne."""
        if outcome.widths:
            self.widths = list(outcome.widths)
        if outcome.test_loss > masked_choice.RISEN * self.least_loss:
            self.most_noise /= 2
        self.least_loss = min(self.least_loss, outcome.test_loss)

    def _expected(self, state: RoundState) -> list[float]:
        if self.widths:
            return self.widths
        return [FIRST_UPDATE * float(root_mean_square(each)) for each in state.first_ranges]

    def _choice(self, state: RoundState, widths: list[float], most_bits: int) -> Choice:
        """Return what is sent, and in which steps."""
        if self.uplink is not None:
            return Choice(1, self.uplink, 0.0, 0.0, 0.0, 0.0)
        found = candidates(
            state, widths, is_first=not self.widths, most_bits=most_bits,
            most_noise=self.most_noise,
        )  # fmt: skip
        keys = key_bytes(state, self._proof_bytes)
        best = best_choice(found, _joules(state, keys))
        limits = [_limit(purse, state, keys, best) for purse in state.purses if not purse.client]
        return best_within(found, limits) if limits else best

    def _down_step(self, state: RoundState, choice: Choice) -> float:
        if self.downlink is not None:
            return self.downlink
        first = 0.0 if self.widths else start_step(state)
        return first or max(downlink_step(state, choice.price), LEAST_STEP)

    def _bytes(
        self, state: RoundState, grid: tuple[TensorCode, ...], choice: Choice
    ) -> Mapping[str, Bytes]:
        if self.masked:
            counts = Subset(state.spec, self.seed, state.round, choice.one_in).counts
            return masked_bytes(state, grid, counts, self._proof_bytes)
        packed = Payload(state.spec, grid).payload_bytes
        return dict.fromkeys(state.clients, Bytes(packed, 0))


def _grid(
    state: RoundState, widths: list[float], choice: Choice, most_bits: int
) -> tuple[TensorCode, ...]:
    """Return the code of each tensor; that of statistics, which are all sent, is fine."""
    codes = []
    for tensor, width in zip(state.spec.tensors, widths, strict=True):
        if tensor.kind == Kind.SERVER:
            codes.append(ZERO)
            continue
        is_coded = tensor.kind == Kind.CODED
        step = choice.step if is_coded else min(choice.step, CODED_UPLINK)
        reach = REACH * width * (choice.one_in if is_coded else 1)
        codes.append(grid_code(step, min(reach, LARGEST_REACH), most_bits))
    return tuple(codes)


def _joules(state: RoundState, keys: Bytes) -> Limit:
    """Return what a round takes in joules."""
    radios = [client.radio for client in state.clients.values()]
    up = 8 * sum(radio.uplink_j_per_bit for radio in radios)
    alone = 8 * downlink_j_per_bit(radios, broadcast=False)
    return Limit(up, 8 * state.downlink_j_per_bit, up * keys.up + alone * keys.down, inf)


def _limit(purse: Purse, state: RoundState, keys: Bytes, best: Choice) -> Limit:
    """Return what a round takes of a budget, and may take; the best choice says how many there are.

    Of what pays for more rounds than are left, each has its share.
    """
    up = sum(purse.up.values())
    alone = sum(_down_price(client.radio, purse.unit) for client in state.clients.values())
    now = Limit(up, purse.down, up * keys.up + alone * keys.down, inf)
    left = max(purse.left - purse.fixed, 0.0)
    rounds = max(1, rounds_paid(state, left, max(now.taken(best), _LEAST)))
    return Limit(now.up, now.down, now.fixed, max(round_share(left, rounds, state), _LEAST))


# Of a unit: less is nothing.
_LEAST = 1e-300


def _affordable(purse: Purse, state: RoundState, taken: Mapping[str, Bytes]) -> float:
    """Return the bytes that may be broadcast, if all else that the round takes is paid for."""
    up = sum(purse.up[name] * each.up for name, each in taken.items())
    alone = sum(
        each.down * _down_price(state.clients[name].radio, purse.unit)
        for name, each in taken.items()
    )
    left = purse.left - purse.fixed - up - alone
    if left < 0:
        return -1.0
    return left / purse.down if purse.down else inf


def _down_price(radio: RadioCost, unit: str) -> float:
    """Return what a byte to one client alone takes of a budget of the run."""
    if unit == JOULES:
        return 8 * downlink_j_per_bit([radio], broadcast=False)
    return byte_price(radio, unit).down


def _too_small(state: RoundState, taken: Mapping[str, Bytes]) -> str:
    up = sum(each.up for each in taken.values())
    names = ", ".join(purse.name for purse in state.purses if not purse.client)
    return f"{names} does not pay for one round, whose updates alone take {up} bytes"
