"""Energy models against arithmetic that is done another way."""

import asyncio
from hashlib import blake2b
from math import exp, inf, log, log10, nan
from pathlib import Path
from random import Random

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedaq import PROTOCOL_VERSION
from fedaq.codec import model
from fedaq.energy.cost import (
    FADING_FLOOR,
    RadioCost,
    checked_cost,
    client_distance_m,
    downlink_j_per_bit,
    rayleigh_power_gain,
    shannon_rate_bps,
)
from fedaq.energy.radios import PRESETS, Radio
from fedaq.errors import UserError
from fedaq.settings import EnergySettings, Settings, ShannonSettings, load_settings
from fedaq.tasks import Training
from fedaq.v1 import federation_pb2 as pb
from fedaq_lab.local import federate
from fedaq_server.conduct import Conduct
from fedaq_server.identity.caller import JoinRefusedError
from fedaq_server.metrics import Metrics
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.record import RoundRecord
from fedaq_server.run import Run
from fedaq_server.transport.client import Client
from fedaq_server.transport.roster import Roster
from fedaq_server.transport.service import Admission

LINK = {
    "bandwidth_hz": 1e6,
    "transmit_power_w": 0.1,
    "distance_m": 100.0,
    "noise_w_per_hz": 4e-21,
    "gain_at_1m": 1e-3,
    "path_loss_exponent": 3.0,
}


def settings_of(*assignments: str) -> Settings:
    return load_settings(environment={}, assignments=assignments)


# ---- Shannon ----------------------------------------------------------------


def test_shannon_rate_is_the_link_budget_in_decibels() -> None:
    received_dbm = 10 * log10(0.1 / 1e-3) - 30 - 10 * 3 * log10(100)
    noise_dbm = 10 * log10(4e-21 / 1e-3) + 10 * log10(1e6)
    snr = 10 ** ((received_dbm - noise_dbm) / 10)
    assert shannon_rate_bps(**LINK) == pytest.approx(1e6 * log(1 + snr, 2), rel=1e-9)


def test_signal_as_strong_as_the_noise_gives_one_bit_per_hertz() -> None:
    noise_w = LINK["noise_w_per_hz"] * LINK["bandwidth_hz"]
    link = LINK | {"transmit_power_w": noise_w / 1e-3, "distance_m": 1.0}
    assert shannon_rate_bps(**link) == pytest.approx(1e6, rel=1e-12)


def test_rate_of_a_very_wide_channel_is_limited_by_the_power() -> None:
    received_w = 0.1 * 1e-3 * 100.0**-3
    limit_bps = received_w / (4e-21 * log(2))
    wide = shannon_rate_bps(**LINK | {"bandwidth_hz": 1e24})
    assert wide == pytest.approx(limit_bps, rel=1e-6)


@given(
    near_m=st.floats(1, 1e4),
    times=st.floats(1.01, 100),
    power_w=st.floats(1e-3, 100),
    exponent=st.floats(1, 3),
)
def test_rate_falls_with_distance_and_rises_with_power_bandwidth_and_gain(
    near_m: float, times: float, power_w: float, exponent: float
) -> None:
    link = LINK | {
        "distance_m": near_m, "transmit_power_w": power_w, "path_loss_exponent": exponent
    }  # fmt: skip
    rate_bps = shannon_rate_bps(**link)
    assert shannon_rate_bps(**link | {"distance_m": near_m * times}) < rate_bps
    assert shannon_rate_bps(**link | {"transmit_power_w": power_w * times}) > rate_bps
    assert shannon_rate_bps(**link | {"bandwidth_hz": 1e6 * times}) > rate_bps
    assert shannon_rate_bps(**link, fading_gain=1 / times) < rate_bps


def test_cost_is_power_over_rate_and_listening_lasts_as_long_as_the_downlink() -> None:
    shannon = ShannonSettings(uplink_power_w=0.2, downlink_power_w=5.0, receive_power_w=0.3)
    up_bps = shannon_rate_bps(**LINK | {"transmit_power_w": 0.2, "distance_m": 40.0})
    down_bps = shannon_rate_bps(**LINK | {"transmit_power_w": 5.0, "distance_m": 40.0})
    cost = shannon.cost_at(40.0)
    assert cost.uplink_j_per_bit * up_bps == pytest.approx(0.2)
    assert cost.downlink_j_per_bit * down_bps == pytest.approx(5.0)
    assert cost.receive_j_per_bit * down_bps == pytest.approx(0.3)


# ---- Distance and fading ----------------------------------------------------


def drawn(seed: int, *path: str | int) -> float:
    digest = blake2b(repr((seed, *path)).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") % 2**63 // 2**10) / 2**53


@given(seed=st.integers(0, 2**63 - 1), name=st.text(min_size=1), number=st.integers(1, 10**6))
def test_distance_and_fading_are_functions_of_seed_client_and_round(
    seed: int, name: str, number: int
) -> None:
    assert client_distance_m(seed, name, 20, 30) == pytest.approx(
        20 + 10 * drawn(seed, "distance", name)
    )
    gain = rayleigh_power_gain(seed, name, number)
    expected = -log(1 - drawn(seed, "fading", name, number))
    assert gain == pytest.approx(max(FADING_FLOOR, expected), rel=1e-6)


def test_distances_are_uniform_between_the_bounds() -> None:
    distances = sorted(client_distance_m(7, f"client-{i}", 10, 110) for i in range(2000))
    assert distances[0] >= 10
    assert distances[-1] <= 110
    # Kolmogorov-Smirnov at the 0.1 % level: 1.95 / sqrt(2000).
    gap = max(abs((d - 10) / 100 - rank / 2000) for rank, d in enumerate(distances, 1))
    assert gap < 1.95 / 2000**0.5


def test_fading_is_exponential_down_to_its_floor() -> None:
    gains = sorted(rayleigh_power_gain(3, f"c{i % 20}", i // 20) for i in range(4000))
    assert gains[0] == FADING_FLOOR
    assert gains[-1] > 4
    above = [(rank, gain) for rank, gain in enumerate(gains, 1) if gain > FADING_FLOOR]
    gap = max(abs(1 - exp(-gain) - rank / 4000) for rank, gain in above)
    assert gap < 1.95 / 4000**0.5


def test_costs_do_not_depend_on_the_order_in_which_they_are_asked_for() -> None:
    energy = EnergySettings(radio="shannon", shannon=ShannonSettings(fading=True))
    asked = [(f"client-{i}", number) for i in range(5) for number in range(1, 6)]
    first = {who: energy.radio_cost(11, *who) for who in asked}
    Random(1).shuffle(asked)
    assert {who: energy.radio_cost(11, *who) for who in asked} == first
    assert len({cost.uplink_j_per_bit for cost in first.values()}) == len(asked)


def test_without_fading_a_client_costs_the_same_in_every_round() -> None:
    energy = EnergySettings(radio="shannon")
    assert energy.radio_cost(1, "a", 1) == energy.radio_cost(1, "a", 2)
    assert energy.radio_cost(1, "a", 1) != energy.radio_cost(1, "b", 1)
    assert energy.radio_cost(1, "a", 1) != energy.radio_cost(2, "a", 1)


# ---- Downlink ---------------------------------------------------------------


def test_every_receiver_pays_to_listen_and_a_broadcast_is_sent_once() -> None:
    receivers = [RadioCost(1.0, 2.0, 0.5), RadioCost(1.0, 7.0, 0.25), RadioCost(1.0, 3.0)]
    assert downlink_j_per_bit(receivers, broadcast=False) == 2 + 7 + 3 + 0.5 + 0.25
    assert downlink_j_per_bit(receivers, broadcast=True) == 7 + 0.5 + 0.25
    assert downlink_j_per_bit([], broadcast=True) == 0


# ---- Settings ---------------------------------------------------------------


def test_default_is_the_same_for_a_bit_each_way() -> None:
    assert settings_of().energy.radio_cost(1, "any", 1) == RadioCost(1e-7, 1e-7, 0.0)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_applies_to_every_client_and_can_be_replaced_in_part(name: str) -> None:
    energy = settings_of(f"energy.radio={name}").energy
    assert energy.radio_cost(1, "a", 1) == energy.radio_cost(2, "b", 9) == PRESETS[name].cost()
    devices = settings_of(f"energy.radio={name}", "energy.downlink.j_per_bit=0").energy
    cost = devices.radio_cost(1, "a", 1)
    assert cost.downlink_j_per_bit == 0
    assert cost.receive_j_per_bit == PRESETS[name].cost().receive_j_per_bit > 0


def test_given_figures_replace_those_of_the_radio() -> None:
    energy = settings_of(
        "energy.uplink.j_per_bit=3e-6", "energy.receive.j_per_bit=2e-6"
    ).energy  # fmt: skip
    assert energy.radio_cost(1, "a", 1) == RadioCost(3e-6, 1e-7, 2e-6)


@pytest.mark.parametrize(
    ("assignments", "words"),
    [
        (["energy.radio=wify"], "energy.radio: did you mean wifi?"),
        (["energy.radio=carrier-pigeon"], "known are constant, shannon, wifi"),
        (["energy.uplink.j_per_bit=0"], "the uplink costs 0 J/bit"),
        (["energy.uplink.j_per_bit=-1"], "energy.uplink.j_per_bit"),
        (["energy.downlink.j_per_bit=0"], "may be 0, but not both"),
        (["energy.receive.j_per_bit=1"], "less than 1"),
        (["energy.shannon.min_distance_m=200"], "min_distance_m 200 is above max_distance_m 100"),
        (["energy.shannon.max_distance_m=1e6"], "at max_distance_m 1e+06 the uplink costs"),
        (["energy.shannon.gain_at_1m=1e-300"], "the uplink costs"),
        (["energy.shannon.fade=true"], "did you mean fading?"),
        (
            ["energy.radio=shannon", "energy.shannon.receive_power_w=0",
             "energy.downlink.j_per_bit=0"],
            "may be 0, but not both",
        ),
    ],
)  # fmt: skip
def test_impossible_energy_settings_are_one_line(assignments: list[str], words: str) -> None:
    with pytest.raises(UserError) as caught:
        settings_of(*assignments)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@given(
    distance_m=st.floats(1, 1e4),
    bandwidth_hz=st.floats(1, 1e12),
    power_w=st.floats(1e-12, 1e6),
    exponent=st.floats(1, 4),
    seed=st.integers(0, 2**63 - 1),
)
def test_no_accepted_channel_ever_costs_too_much(
    distance_m: float, bandwidth_hz: float, power_w: float, exponent: float, seed: int
) -> None:
    try:
        shannon = ShannonSettings(
            min_distance_m=1, max_distance_m=distance_m, bandwidth_hz=bandwidth_hz,
            uplink_power_w=power_w, path_loss_exponent=exponent, fading=True,
        )  # fmt: skip
    except ValueError:
        return
    for number in range(1, 4):
        checked_cost(shannon.radio_cost(seed, "client", number))


def test_a_channel_is_judged_by_its_deepest_fade() -> None:
    far = "energy.shannon.max_distance_m=5e5"
    settings_of(far)
    with pytest.raises(UserError, match="at max_distance_m 500000 the uplink costs"):
        settings_of(far, "energy.shannon.fading=true")


# ---- Presets ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "uplink_nj", "receive_nj", "downlink_nj"),
    # Nanojoules per bit: milliwatts over megabits per second.
    [
        ("wifi", 3.3 * 180 / 20, 3.3 * 100 / 20, 3.3 * 180 / 20),
        ("lte-m", 370 / 0.180, 166.5 / 0.300, 1000 * 4.7 * 40 * 0.12 / 0.300),
        ("nb-iot", 500 / 0.062, 166.5 / 0.026, 1000 * 4.7 * 40 * 0.02 / 0.026),
        ("5g-nr", 29.15, 29.15 / 2.2, 1000 * 4.7 * 40 / 75),
        ("lora", 95.7 / 0.00546875, 33.99 / 0.00546875, 95.7 / 0.00546875),
    ],
)
def test_presets_are_power_over_rate(
    name: str, uplink_nj: float, receive_nj: float, downlink_nj: float
) -> None:
    cost = PRESETS[name].cost()
    assert cost.uplink_j_per_bit == pytest.approx(uplink_nj * 1e-9, rel=1e-9)
    assert cost.receive_j_per_bit == pytest.approx(receive_nj * 1e-9, rel=1e-9)
    assert cost.downlink_j_per_bit == pytest.approx(downlink_nj * 1e-9, rel=1e-9)


@pytest.mark.parametrize("radio", PRESETS.values(), ids=PRESETS)
def test_every_figure_of_a_preset_has_its_source(radio: Radio) -> None:
    checked_cost(radio.cost())
    for activity in (radio.uplink, radio.receive, radio.downlink):
        assert len(activity.source) > 20


# ---- What the server makes of it --------------------------------------------

SPEC = model.ModelSpec((model.TensorSpec("w", (3,)),))


def admitted(**stated: float) -> Client:
    settings = Settings()
    admission = Admission(
        SPEC, settings, Training(1, 1, 0.1, 0.0), "run", Roster(), Conduct(settings.limits),
        Metrics(None),
    )  # fmt: skip
    join = pb.Join(
        protocol_version=PROTOCOL_VERSION,
        client="shed",
        examples=5,
        model=model.to_message(SPEC),
        radio=pb.Radio(**stated) if stated else None,  # type: ignore[arg-type]
    )
    return admission.admit(pb.ClientMessage(join=join), None)  # type: ignore[arg-type]


def test_a_client_may_state_its_own_radio() -> None:
    assert admitted().radio is None
    stated = {"uplink_j_per_bit": 2e-6, "downlink_j_per_bit": 3e-6, "receive_j_per_bit": 4e-7}
    assert admitted(**stated).radio == RadioCost(2e-6, 3e-6, 4e-7)


@pytest.mark.parametrize("bad", [0.0, -1e-7, 1.0, inf, nan])
def test_an_impossible_radio_may_not_join(bad: float) -> None:
    with pytest.raises(JoinRefusedError, match="the radio of shed: the uplink") as caught:
        admitted(uplink_j_per_bit=bad, downlink_j_per_bit=1e-7)
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    if bad != 0:
        with pytest.raises(JoinRefusedError, match="the radio of shed: the downlink"):
            admitted(uplink_j_per_bit=1e-7, downlink_j_per_bit=1e-7, receive_j_per_bit=bad)


@pytest.mark.parametrize("broadcast", [False, True])
def test_rounds_are_charged_what_each_client_costs_in_them(broadcast: bool, tmp_path: Path) -> None:
    settings = settings_of(
        "clients=3", "rounds=2", "scheme=fixed", "energy.radio=shannon",
        "energy.shannon.fading=true", f"energy.broadcast={str(broadcast).lower()}",
    )  # fmt: skip
    records: list[RoundRecord] = []
    asyncio.run(federate(Run(settings, Ledger(tmp_path), records.append)))
    for record in records:
        radios = [
            settings.energy.radio_cost(settings.seed, f"client-{i}", record.round)
            for i in (1, 2, 3)
        ]
        # With fixed bits every payload in one direction has the same size.
        up = 8 * record.uplink_payload_bytes / 3
        down = 8 * record.downlink_payload_bytes / 3
        sending = [radio.downlink_j_per_bit for radio in radios]
        expected_j = (
            up * sum(radio.uplink_j_per_bit for radio in radios)
            + down * sum(radio.receive_j_per_bit for radio in radios)
            + down * (max(sending) if broadcast else sum(sending))
        )
        assert record.energy_j == pytest.approx(expected_j, rel=1e-9)
    assert records[0].energy_j != records[1].energy_j
