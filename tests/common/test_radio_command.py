"""``fedaq radio`` as a user runs it."""

import os
import subprocess
import sys

import pytest

from fedaq.energy.radios import PRESETS


def fedaq_radio(*arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: os.environ[name] for name in os.environ if not name.startswith("FEDAQ_")}
    return subprocess.run(
        [sys.executable, "-m", "fedaq", "radio", *arguments],
        capture_output=True,
        text=True,
        env=environment | {"COLUMNS": "100", "PYTHONUTF8": "1"},
        check=False,
    )


@pytest.fixture(scope="module")
def printed() -> str:
    result = fedaq_radio()
    assert result.returncode == 0, result.stderr
    return result.stdout


def cells(table: str, *first: str) -> list[str]:
    for line in table.splitlines():
        row = [cell.strip() for cell in line.strip("│").split("│")]
        if row[: len(first)] == list(first):
            return row[len(first) :]
    raise AssertionError(f"no row {first} in:\n{table}")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_shown_with_joules_per_megabit_and_source(name: str, printed: str) -> None:
    radio = PRESETS[name]
    for verb, activity in (
        ("sent up", radio.uplink), ("received", radio.receive), ("sent down", radio.downlink),
    ):  # fmt: skip
        power, rate, joules, source = cells(printed, name, verb)
        assert float(joules) == pytest.approx(activity.power_w / activity.rate_bps * 1e6, rel=5e-3)
        amount, unit = rate.split()
        shown_bps = float(amount) * {"Mbit/s": 1e6, "kbit/s": 1e3}[unit]
        assert shown_bps == pytest.approx(activity.rate_bps, rel=5e-3)
        assert float(power.removesuffix(" W")) == pytest.approx(activity.power_w, rel=5e-4)
        assert f"\n{source} {activity.source}\n" in printed


def test_shannon_is_shown_at_the_bounds_of_the_settings(printed: str) -> None:
    assert cells(printed, "10 m")
    assert cells(printed, "100 m")


def test_shannon_is_shown_at_the_distances_asked_for_with_the_settings_given() -> None:
    result = fedaq_radio(
        "--distance", "1", "--distance", "2000", "--set", "energy.shannon.path_loss_exponent=2"
    )
    near, far = cells(result.stdout, "1 m"), cells(result.stdout, "2000 m")
    # In free space 2000 times as far is 10 log10(2000**2) = 66 dB: 21.9 bit/s a hertz less.
    fall = float(near[0].removesuffix(" Mbit/s")) - float(far[0].removesuffix(" Mbit/s"))
    assert fall == pytest.approx(21.9, abs=0.1)
    assert float(far[2]) > float(near[2])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--distance", "0.5"], "--distance 0.5: 1 to 1e+06 m are possible"),
        (["--distance", "nan"], "--distance nan"),
        (["--set", "energy.shannon.fading=perhaps"], "energy.shannon.fading"),
        (["--config", "no-such.toml"], "no-such.toml: cannot be read"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], words: str) -> None:
    result = fedaq_radio(*arguments)
    assert result.returncode == 2
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_neither_torch_nor_the_codec_is_loaded_for_it() -> None:
    code = (
        "import sys, fedaq.cli.radio_tables as t; t.show([50], config=None, assignments=[]); "
        "heavy = {'torch', 'fedaq.codec.kernels', 'grpc', 'matplotlib'}; "
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
