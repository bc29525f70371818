"""How people write what may be spent."""

import pytest

from fedaq.energy.budgets import (
    DeviceBudgets,
    byte_price,
    parse_amounts,
    parse_device_budgets,
    parse_tariff,
    written,
)
from fedaq.energy.cost import RadioCost
from fedaq.errors import UserError
from fedaq.settings import Settings, load_settings


def settings(*assignments: str) -> Settings:
    return load_settings(environment={}, assignments=assignments)


@pytest.mark.parametrize(
    ("text", "amounts"),
    [
        ("8J", {"J": 8.0}),
        ("500 mJ", {"J": 0.5}),
        ("1.5e-3J", {"J": 0.0015}),
        ("20MB", {"B": 2e7}),
        ("3EUR", {"EUR": 3.0}),
        ("8J, 20kB,0.5USD", {"J": 8.0, "B": 2e4, "USD": 0.5}),
    ],
)
def test_amounts_are_read(text: str, amounts: dict[str, float]) -> None:
    assert parse_amounts(text) == pytest.approx(amounts)


@pytest.mark.parametrize(
    "text", ["8", "", "J", "0J", "-1J", "20mb", "3 eur", "8J,2J", "1EUR,1USD", "1e30J", "nanJ"]
)
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"J|amount|unit|currenc"):
        parse_amounts(text)


def test_devices_may_be_named() -> None:
    budgets = parse_device_budgets("2J,1MB,shed:500mJ")
    assert budgets == DeviceBudgets({"J": 2.0, "B": 1e6}, {"shed": {"J": 0.5}})
    assert budgets.of("shed") == {"J": 0.5, "B": 1e6}
    assert budgets.of("barn") == {"J": 2.0, "B": 1e6}
    with pytest.raises(ValueError, match="name of a client"):
        parse_device_budgets(":2J")


def test_a_tariff_may_name_radios() -> None:
    tariff = parse_tariff("0.5,lte-m:2,wifi:0")
    assert [tariff.per_byte(name) for name in ("nb-iot", "lte-m", "wifi")] == [5e-7, 2e-6, 0.0]
    for text, why in (("lots", "no price"), ("lte:2", "did you mean"), ("-1", "0 or more")):
        with pytest.raises(ValueError, match=why):
            parse_tariff(text)


def test_a_device_pays_for_what_it_sends_and_hears() -> None:
    cost = RadioCost(2e-7, 5e-6, 1e-7, 3e-6)
    assert (byte_price(cost, "J").up, byte_price(cost, "J").down) == pytest.approx((1.6e-6, 8e-7))
    assert (byte_price(cost, "B").up, byte_price(cost, "B").down) == (1, 1)
    assert (byte_price(cost, "EUR").up, byte_price(cost, "EUR").down) == (3e-6, 3e-6)


def test_what_is_rounded_up_is_enough() -> None:
    for amount in (144.0, 1.23456789e-5, 7.0000001, 123456789.0):
        for unit in ("J", "B"):
            said = written(amount, unit, up=True).replace(" ", "")
            assert parse_amounts(said)[unit] >= amount
    assert written(20e6, "B") == "20 MB"
    assert written(0.05, "J") == "0.05 J"


def test_settings_join_the_budgets_of_a_kind() -> None:
    assert settings("energy.budget=8J,20MB").energy.run_budget == {"J": 8.0, "B": 2e7}
    assert settings("energy.budget_j=8").energy.joules == 8.0
    both = settings("energy.budget_j=8", "energy.budget=20MB").energy.run_budget
    assert both == {"J": 8.0, "B": 2e7}
    for assignments, why in (
        (("energy.budget_j=8", "energy.budget=2J"), "two names of one thing"),
        (("energy.budget=3EUR",), "needs a tariff"),
        (("energy.budget=3EUR", "energy.device_budget=1USD", "energy.tariff=1"), "one currency"),
        (("energy.budget=8",), "write joules, bytes or money"),
        (("client.device_budget=8",), "write joules, bytes or money"),
    ):
        with pytest.raises(UserError, match=why):
            settings(*assignments)


def test_the_radio_of_the_settings_has_its_tariff() -> None:
    energy = settings("energy.tariff=0.5,lte-m:2", "energy.radio=lte-m").energy
    assert energy.radio_cost(1, "shed", 1).money_per_byte == 2e-6
