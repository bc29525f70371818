"""What relays report of the hop to their own clients, and what a budget leaves to it.

A relay is a client to this server and the server of its clients. Joules are spent on both hops, at
one price (docs/research/theory.md).
"""

import logging
from collections.abc import Iterable, Mapping
from math import inf

from fedaq.energy.budgets import JOULES, written
from fedaq.errors import ProtocolError
from fedaq.process.logs import event
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.accounts import Accounts
from fedaq_server.records.record import Relayed
from fedaq_server.transport.client import MAX_EXAMPLES, Client

log = logging.getLogger(__name__)

# Of the joules of a round with relays, those of their hops, before any were reported.
FIRST_SHARE = 0.5
# The hops may take so many times what is expected of them in a round, while the budget lasts.
SLACK = 3.0


def relayed_in(report: pb.RangeReport) -> Relayed:
    """Return for whom a relay's update speaks; its joules are those of the run so far.

    Raises
    ------
    ProtocolError
        If that cannot be.
    """
    said = report.relayed
    if not (0 < said.examples <= MAX_EXAMPLES and said.clients and 0 <= said.energy_j < inf):
        raise ProtocolError(
            pb.REFUSAL_REASON_OUT_OF_RANGE,
            f"a relay's update cannot stand for {said.clients} clients with {said.examples} "
            f"examples and {said.energy_j:g} J",
        )
    return Relayed(said.clients, said.examples, said.energy_j)


def reserved_j(accounts: Accounts, clients: Iterable[Client], fixed_j: float) -> float:
    """Return what of the joules left is for the hops of relays; 0 without them, or a budget.

    At a price lambda every sender of either hop takes joules in proportion to ``1/sqrt(lambda)``,
    so their shares stay about what they were.

    Parameters
    ----------
    accounts : Accounts
    clients : iterable of Client
        Of the round.
    fixed_j : float
        That clients take which missed models.
    """
    if JOULES not in accounts.run or all(client.relayed is None for client in clients):
        return 0.0
    spent_j = accounts.spent.get(JOULES, 0.0)
    share = accounts.relays_j / spent_j if accounts.relays_j else FIRST_SHARE
    return share * max(0.0, accounts.left("", JOULES) - fixed_j)


def tell_what_is_not_counted(accounts: Accounts, clients: Iterable[Client]) -> None:
    """Say that a budget in bytes or money does not know of the hops of relays."""
    units = [unit for unit in accounts.run if unit != JOULES]
    relays = [client.name for client in clients if client.relayed is not None]
    if units and relays:
        budgets = " and ".join(written(accounts.run[unit], unit) for unit in units)
        log.warning(
            "energy.budget: %s are for the hop to this server alone; what the clients of %s send "
            "and receive takes nothing of them", budgets, ", ".join(relays),
            extra=event("hop not counted", relays=relays),
        )  # fmt: skip


def allowances(
    clients: Iterable[Client], weights: Mapping[str, int], reserved_j: float, rounds: int
) -> dict[str, float]:
    """Return what the hop of each relay may take in a round, so that nothing is overspent."""
    relays = [client.name for client in clients if client.relayed is not None]
    most_j = reserved_j * _at_once(rounds)
    total = sum(weights[name] for name in relays)
    return {name: most_j * weights[name] / total for name in relays}


def reserve_j(allowance_j: float, rounds: int) -> float:
    """Return what is reserved for a relay, in so many rounds, by what it may take in this one."""
    return allowance_j / _at_once(rounds)


def _at_once(rounds: int) -> float:
    return min(1.0, SLACK / rounds)
