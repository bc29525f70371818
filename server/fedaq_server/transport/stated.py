"""What a client states when it joins: its software, its radio, tariff, and what it may spend."""

from dataclasses import dataclass
from math import inf

import grpc

from fedaq.energy.budgets import BYTES, JOULES, is_currency, is_money
from fedaq.energy.cost import RadioCost, checked_cost
from fedaq.errors import printable
from fedaq.settings import Settings
from fedaq.tasks import Training
from fedaq.tasks.training import KNOWN, KNOWN_CLIPPING, KNOWN_SPARSE, is_plain
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.accounts import Accounts
from fedaq_server.identity.caller import JoinRefusedError
from fedaq_server.schemes.sparse import sparsity_of


@dataclass(frozen=True)
class Stated:
    """What a client states; what it leaves out, the settings say.

    Attributes
    ----------
    radio : RadioCost, optional
    tariff : float, optional
        Money for a megabyte.
    budget : dict of str to float
        By the unit.
    """

    radio: RadioCost | None
    tariff: float | None
    budget: dict[str, float]


def stated_in(join: pb.Join, accounts: Accounts) -> Stated:
    """Return what a client states.

    Raises
    ------
    JoinRefusedError
        If it cannot be.
    """
    try:
        return Stated(_radio(join), _tariff(join), _budget(join, accounts))
    except ValueError as error:
        raise JoinRefusedError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from None


def check_software(join: pb.Join, training: Training, settings: Settings) -> None:
    """Refuse a client whose software does not know what the run asks of it.

    Raises
    ------
    JoinRefusedError
        If it does not.
    """
    if join.training < KNOWN and not is_plain(training):
        asked = "trains with more than plain SGD (fedaq settings training)"
    elif join.training < KNOWN_SPARSE and sparsity_of(settings) is not None:
        asked = f"has clients send a part of each update (scheme {settings.scheme})"
    elif join.training < KNOWN_CLIPPING and settings.is_private:
        asked = "has clients clip their updates (privacy.epsilon)"
    else:
        return
    raise JoinRefusedError(
        grpc.StatusCode.FAILED_PRECONDITION,
        f"this run {asked}, which {printable(join.software) or 'the software of the client'} does "
        "not do; install the same fedaq on both",
    )


def check_masks(join: pb.Join, settings: Settings) -> None:
    """Refuse a client that cannot put its update on the grid of all, or mask it.

    Raises
    ------
    JoinRefusedError
        If it cannot.
    """
    if join.HasField("relayed") and settings.common_grid:
        raise JoinRefusedError(
            grpc.StatusCode.FAILED_PRECONDITION,
            f"{settings.grid_setting}: this run takes no relay, and {join.client} is one; let "
            "its clients connect to this server",
        )
    if settings.privacy.secure_aggregation and not join.masks:
        raise JoinRefusedError(
            grpc.StatusCode.FAILED_PRECONDITION,
            f"this run has masked updates, and {join.client} cannot mask its own; install on it "
            "the same fedaq as here: pip install 'fedaq[client,privacy]'",
        )


def open_account(
    accounts: Accounts, name: str, cost: RadioCost, budget: dict[str, float], least: int
) -> None:
    """Take note of what a client may spend.

    Parameters
    ----------
    least : int
        Bytes each way that a round takes at the least.

    Raises
    ------
    JoinRefusedError
        If that pays for no round.
    """
    before = accounts.stated.pop(name, {})
    if budget:
        accounts.stated[name] = budget
    why, known = accounts.pays(name, cost, least, least), accounts.empty.get(name)
    if known is not None and budget == before:
        why = known.reason
    if why:
        raise JoinRefusedError(grpc.StatusCode.FAILED_PRECONDITION, why)
    # It states more than it did.
    accounts.empty.pop(name, None)


def _radio(join: pb.Join) -> RadioCost | None:
    if not join.HasField("radio"):
        return None
    said = join.radio
    try:
        return checked_cost(
            RadioCost(said.uplink_j_per_bit, said.downlink_j_per_bit, said.receive_j_per_bit)
        )
    except ValueError as error:
        raise ValueError(f"the radio of {join.client}: {error}") from None


def _tariff(join: pb.Join) -> float | None:
    if not join.HasField("tariff"):
        return None
    if not 0 <= join.tariff < inf:
        raise ValueError(f"the tariff of {join.client} is {join.tariff}; a price is 0 or more")
    return join.tariff


def _budget(join: pb.Join, accounts: Accounts) -> dict[str, float]:
    said, at = join.budget, f"the budget of {join.client}:"
    kinds = (("joules", JOULES), ("bytes", BYTES), ("money", said.currency))
    amounts = {unit: float(getattr(said, kind)) for kind, unit in kinds if said.HasField(kind)}
    if not all(0 < amount < inf for amount in amounts.values()):
        raise ValueError(f"{at} more than nothing is needed")
    if said.HasField("money"):
        if not is_currency(said.currency):
            raise ValueError(f"{at} a currency has three capital letters")
        ours = {*accounts.run, *accounts.given.units()}
        other = [unit for unit in filter(is_money, ours) if unit != said.currency]
        if other:
            raise ValueError(f"{at} it is in {said.currency}, those of the run are in {other[0]}")
    return amounts
