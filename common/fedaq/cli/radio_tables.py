"""Joules per megabit, as tables."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from fedaq.energy.radios import PRESETS, Activity
from fedaq.errors import UserError
from fedaq.process.terminal import console
from fedaq.settings import MAX_DISTANCE_M, ShannonSettings, load_settings

BITS_PER_MEGABIT = 1e6


def show(distances_m: Sequence[float], *, config: Path | None, assignments: Sequence[str]) -> None:
    """Print what a bit costs with every preset, and with radio ``shannon`` by distance.

    Raises
    ------
    UserError
        If a setting or a distance is wrong.
    """
    for distance_m in distances_m:
        if not 1 <= distance_m <= MAX_DISTANCE_M:
            raise UserError(f"--distance {distance_m:g}: 1 to {MAX_DISTANCE_M:g} m are possible")
    shannon = load_settings(config=config, assignments=assignments).energy.shannon
    console.print(_preset_table())
    for number, (_, _, activity) in enumerate(_activities(), 1):
        console.print(f"({number}) {activity.source}", soft_wrap=True)
    console.print()
    console.print(
        _shannon_table(shannon, distances_m or [shannon.min_distance_m, shannon.max_distance_m])
    )


def _activities() -> list[tuple[str, str, Activity]]:
    return [
        (name, verb, activity)
        for name, radio in PRESETS.items()
        for verb, activity in (
            ("sent up", radio.uplink),
            ("received", radio.receive),
            ("sent down", radio.downlink),
        )
    ]


def _preset_table() -> Table:
    table = Table("radio", "a bit is")
    for column in ("power", "rate", "J/Mbit", "source"):
        table.add_column(column, justify="right")
    for number, (name, verb, activity) in enumerate(_activities(), 1):
        table.add_row(
            name,
            verb,
            _watts(activity.power_w),
            _rate(activity.rate_bps),
            _joules(activity.j_per_bit),
            f"({number})",
            end_section=number % 3 == 0,
        )
    return table


def _shannon_table(shannon: ShannonSettings, distances_m: Sequence[float]) -> Table:
    table = Table(
        title=f"shannon: {shannon.bandwidth_hz / 1e6:g} MHz, "
        f"{_watts(shannon.uplink_power_w)} up, {_watts(shannon.downlink_power_w)} down, "
        f"{_watts(shannon.receive_power_w)} to listen; no fading",
        title_justify="left",
    )
    for column in ("distance", "rate up", "rate down"):
        table.add_column(column, justify="right")
    for column in ("sent up", "received", "sent down"):
        table.add_column(f"{column}, J/Mbit", justify="right")
    for distance_m in distances_m:
        cost = shannon.cost_at(distance_m)
        table.add_row(
            f"{distance_m:g} m",
            _rate(shannon.rate_bps(shannon.uplink_power_w, distance_m)),
            _rate(shannon.rate_bps(shannon.downlink_power_w, distance_m)),
            _joules(cost.uplink_j_per_bit),
            _joules(cost.receive_j_per_bit),
            _joules(cost.downlink_j_per_bit),
        )
    return table


def _joules(j_per_bit: float) -> str:
    return f"{j_per_bit * BITS_PER_MEGABIT:.3g}"


def _watts(power_w: float) -> str:
    return f"{power_w:.4g} W"


def _rate(rate_bps: float) -> str:
    return f"{rate_bps / 1e6:.3g} Mbit/s" if rate_bps >= 1e6 else f"{rate_bps / 1e3:.3g} kbit/s"
