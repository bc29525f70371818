"""FedAQ where all updates of a round are on one grid, as secure aggregation needs it.

The grid is chosen before anybody trains, from what earlier rounds showed of all updates together.
Masked codes cannot be entropy-coded. What a masked round takes is known when it begins, so it is
run if every budget pays for it, and what goes down stays within the rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import floor, inf

from fedaq.codec.common_grid import grid_code
from fedaq.codec.model import Kind
from fedaq.codec.payload import ZERO, Payload, TensorCode
from fedaq.codec.quantizer import MAX_BITS, Spread
from fedaq.energy.budgets import JOULES, byte_price
from fedaq.energy.cost import RadioCost, downlink_j_per_bit
from fedaq.errors import UserError
from fedaq.privacy.layout import WIDEST_CODES
from fedaq_server.accounts import Purse
from fedaq_server.schemes.code_lengths import root_mean_square
from fedaq_server.schemes.expected import FIRST_UPDATE
from fedaq_server.schemes.masked_bytes import Bytes, masked_bytes
from fedaq_server.schemes.scheme import ClientState, Grant, Outcome, Plan, RoundState
from fedaq_server.schemes.spending import least_down_bytes
from fedaq_server.schemes.step_grants import downlink_grant

# The range of codes, in root mean squares of an update. What lies beyond is cut.
REACH = 6.0
# The server takes no larger update.
LARGEST_REACH = 2.0**15


@dataclass
class CommonGrid:
    """One step per direction, the nearest power of two, and ranges from the last updates.

    Attributes
    ----------
    uplink, downlink : float
        The steps, in the unit of the weights.
    masked : bool
        Whether updates are masked, by keys whose proofs take `_proof_bytes` at the most.
    widths : list of float
        Per tensor: the root mean square of the last round's updates.
    """

    uplink: float
    downlink: float
    masked: bool = False
    widths: list[float] = field(default_factory=list)
    _proof_bytes: int = 0

    def plan(self, state: RoundState) -> Plan | None:
        """Choose the grid, and end the run if a budget does not pay for the round.

        Raises
        ------
        UserError
            If none pays for the first.
        """
        release = state.release
        grid = self._grid(state) if release is None else release.grid(state.spec)
        down = downlink_grant(state, self.downlink)
        taken = self._bytes(state, grid)
        limit = inf
        for purse in state.purses:
            if not purse.client:
                limit = min(limit, _affordable(purse, state, taken))
        if limit < least_down_bytes(state):
            if state.round == 1:
                raise UserError(_too_small(state, taken))
            return None
        return Plan(
            Grant(down.bits, down.steps, None if limit == inf else floor(limit)),
            dict.fromkeys(state.clients, tuple(code.bits for code in grid)),
            least_up_bytes={name: each.up for name, each in taken.items()},
            alone_bytes={name: each.down for name, each in taken.items()},
            grid=grid,
        )

    def grant(
        self, state: RoundState, plan: Plan, client: ClientState, ranges: tuple[Spread, ...]
    ) -> Grant:
        """Grant the grid to whoever asks."""
        codes = plan.grid
        return Grant(tuple(code.bits for code in codes), tuple(code.step for code in codes))

    def learn(self, outcome: Outcome) -> None:
        """Note how wide the updates were."""
        if outcome.widths:
            self.widths = list(outcome.widths)

    def _grid(self, state: RoundState) -> tuple[TensorCode, ...]:
        most_bits = min(MAX_BITS, WIDEST_CODES - state.total_weight.bit_length())
        reaches = [min(REACH * width, LARGEST_REACH) for width in self._expected(state)]
        return tuple(
            ZERO if tensor.kind == Kind.SERVER else grid_code(self.uplink, reach, most_bits)
            for tensor, reach in zip(state.spec.tensors, reaches, strict=True)
        )

    def _expected(self, state: RoundState) -> list[float]:
        if self.widths:
            return self.widths
        return [FIRST_UPDATE * float(root_mean_square(each)) for each in state.first_ranges]

    def _bytes(self, state: RoundState, grid: tuple[TensorCode, ...]) -> Mapping[str, Bytes]:
        if self.masked:
            return masked_bytes(state, grid, self._proof_bytes)
        packed = Payload(state.spec, grid).payload_bytes
        return dict.fromkeys(state.clients, Bytes(packed, 0))


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
