"""What a round came to: accuracy, bits, bytes, joules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import nan

from fedaq.codec.payload import Payload
from fedaq.metric import ACCURACY, LOSS
from fedaq.tasks import Evaluation
from fedaq_server.records.record import Relayed, RoundRecord
from fedaq_server.rounds.reports import Report
from fedaq_server.rounds.round import catch_up_j
from fedaq_server.rounds.validation import averaged, of_names, told_by_most
from fedaq_server.schemes.scheme import RoundState
from fedaq_server.transport.tcp_counter import WireBytes


@dataclass(frozen=True)
class Tested:
    """What the test of the next model gave.

    Attributes
    ----------
    evaluation : Evaluation
    not_finite : tuple of str
        A few tensors that are not finite, where what the run is about is not either.
    is_tested : bool
        Whether models are tested here; a relay leaves that to its server.
    """

    evaluation: Evaluation
    not_finite: tuple[str, ...]
    is_tested: bool = True


@dataclass(frozen=True)
class Downlink:
    """What went down in a round.

    Attributes
    ----------
    payload : Payload
        The broadcast.
    payload_bytes : int
        What it took, entropy-coded or not.
    catch_up_bytes : mapping of str to int
        What clients that had missed models needed, by name.
    without : frozenset of str
        Those of them that needed the whole model instead of the broadcast.
    alone_bytes : mapping of str to int
        What clients were sent of keys and shares of others, by name.
    """

    payload: Payload
    payload_bytes: int
    catch_up_bytes: Mapping[str, int]
    without: frozenset[str]
    alone_bytes: Mapping[str, int] = field(default_factory=dict)


def measure(
    state: RoundState,
    downlink: Downlink,
    reports: Sequence[Report],
    tested: Tested,
    wire: WireBytes | None,
    *,
    relays: Mapping[str, Relayed],
    charged: Mapping[str, int],
    declined: Mapping[str, int],
    price: float,
    seconds: float,
    epsilon: float,
) -> RoundRecord:
    """Sum up a round.

    `reports` come in the order of the clients' names. Energy is charged for every grant, also
    where the update was left out.
    """
    weight = sum(report.weight for report in reports)
    receivers = len(state.clients)
    loss = sum(report.weight * report.train_loss for report in reports)
    bits = sum(report.update.sent_bits(report.payload_bytes) for report in reports)
    catch_up_bytes = sum(downlink.catch_up_bytes.values())
    every = {each.client.name: each.validation for each in reports if each.validation is not None}
    names = {LOSS, *tested.evaluation.metrics} if tested.is_tested else told_by_most(every)
    told = {name: of_names(each, names) for name, each in every.items()}
    return RoundRecord(
        round=state.round,
        test_accuracy=tested.evaluation.accuracy,
        test_loss=tested.evaluation.loss,
        train_loss=loss / weight if reports else nan,
        uplink_bits=bits / max(len(reports), 1),
        downlink_bits=downlink.payload.sent_bits(downlink.payload_bytes),
        uplink_payload_bytes=sum(report.payload_bytes for report in reports),
        downlink_payload_bytes=downlink.payload_bytes * (receivers - len(downlink.without))
        + catch_up_bytes
        + sum(downlink.alone_bytes.values()),
        catch_up_payload_bytes=catch_up_bytes,
        uplink_wire_bytes=wire.uplink if wire else None,
        downlink_wire_bytes=wire.downlink if wire else None,
        energy_j=_uplink_j(state, charged)
        + _downlink_j(state, downlink)
        + sum(relay.energy_j for relay in relays.values()),
        price=price,
        clients=len(reports),
        left_out=receivers - len(reports),
        seconds=seconds,
        test_metrics={
            name: value for name, value in tested.evaluation.metrics.items() if name != ACCURACY
        },
        not_finite=tested.not_finite,
        client_metrics=averaged(told),
        validations=told,
        declined=dict(sorted(declined.items())),
        training_j=sum(report.training_j for report in reports),
        relays=relays,
        epsilon=epsilon,
    )


def _uplink_j(state: RoundState, charged: Mapping[str, int]) -> float:
    return sum(
        state.clients[name].radio.uplink_j_per_bit * 8 * charged[name] for name in sorted(charged)
    )


def _downlink_j(state: RoundState, downlink: Downlink) -> float:
    return (
        state.downlink_j_per_bit * 8 * downlink.payload_bytes
        + catch_up_j(state.clients, downlink.catch_up_bytes)
        + catch_up_j(state.clients, downlink.alone_bytes)
    )
