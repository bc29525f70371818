"""Where settings come from, which wins, and what a mistake is told."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedaq.cli.options import settings_of
from fedaq.errors import UserError
from fedaq.settings import Settings, flattened, load_settings

SOURCES = ("file", "environment", "flags", "assignments")


def load(
    tmp_path: Path | None = None,
    toml: str | bytes | None = None,
    *,
    environment: dict[str, str] | None = None,
    flags: dict[str, Any] | None = None,
    assignments: tuple[str, ...] = (),
) -> Settings:
    config = None
    if toml is not None:
        assert tmp_path is not None
        config = tmp_path / "run.toml"
        config.write_bytes(toml.encode() if isinstance(toml, str) else toml)
    return load_settings(
        config=config, environment=environment or {}, flags=flags, assignments=assignments
    )


def mistake(tmp_path: Path | None = None, toml: str | bytes | None = None, **sources: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(tmp_path, toml, **sources)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def test_without_any_source_every_setting_has_its_default() -> None:
    assert load() == Settings()


@pytest.mark.parametrize("present", range(1, 16))
def test_the_later_source_wins(tmp_path: Path, present: int) -> None:
    given_by = [source for number, source in enumerate(SOURCES) if present >> number & 1]
    settings = load(
        tmp_path,
        "[network]\nport = 1001" if "file" in given_by else None,
        environment={"FEDAQ_NETWORK__PORT": "1002"} if "environment" in given_by else {},
        flags={"network.port": 1003 if "flags" in given_by else None},
        assignments=("network.port=1004",) if "assignments" in given_by else (),
    )
    assert settings.network.port == 1001 + SOURCES.index(given_by[-1])


def test_sources_add_up_within_a_section(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        "seed = 2\n[fedaq]\nmin_bits = 2\nmax_bits = 4",
        environment={"FEDAQ_FEDAQ__MAX_BITS": "5", "PATH": "/bin", "FEDAQX": "1"},
        flags={"rounds": 7, "task": None},
        assignments=("fedaq.uplink_resolution=0.5", "base = exact", "base=broadcast"),
    )
    assert (settings.fedaq.min_bits, settings.fedaq.max_bits) == (2, 5)
    assert settings.fedaq.uplink_resolution == 0.5
    assert (settings.seed, settings.rounds, settings.task) == (2, 7, "digits")
    assert settings.base == "broadcast"


def test_nested_sections_are_reached_from_everywhere(tmp_path: Path) -> None:
    for settings in (
        load(tmp_path, "[energy.uplink]\nj_per_bit = 2e-6"),
        load(environment={"FEDAQ_ENERGY__UPLINK__J_PER_BIT": "2e-6"}),
        load(flags={"energy.uplink.j_per_bit": 2e-6}),
        load(assignments=("energy.uplink.j_per_bit=2e-6",)),
    ):
        assert settings.energy.uplink.j_per_bit == 2e-6
        assert settings.energy.downlink == Settings().energy.downlink


@given(st.integers(1, 100_000), st.booleans())
def test_text_is_read_as_toml_reads_it(clients: int, capture: bool) -> None:
    settings = load(
        environment={"FEDAQ_CLIENTS": str(clients)},
        assignments=(f"capture={str(capture).lower()}", "data=/a folder/b=c", "task=my.task:it"),
    )
    assert (settings.clients, settings.capture) == (clients, capture)
    assert (settings.data, settings.task) == (Path("/a folder/b=c"), "my.task:it")


def test_the_switch_for_tracebacks_is_no_setting() -> None:
    assert load(environment={"FEDAQ_TRACEBACK": "1"}) == Settings()


def test_a_mistake_in_the_file_names_the_file(tmp_path: Path) -> None:
    at = f"{tmp_path / 'run.toml'}: "
    assert (
        mistake(tmp_path, "clinets = 3") == f"{at}clinets is not a setting; did you mean clients?"
    )
    assert mistake(tmp_path, "[network]\nprot = 1") == (
        f"{at}network.prot is not a setting; did you mean port?"
    )
    assert mistake(tmp_path, "[energy.uplink]\nqqq = 1").startswith(
        f"{at}energy.uplink.qqq is not a setting; known here: j_per_bit"
    )
    assert mistake(tmp_path, "[qqq]").startswith(f"{at}qqq is not a setting; known here: task, ")
    assert mistake(tmp_path, "network = 3").startswith(
        f"{at}network is a section; set the names in it: host, port,"
    )
    assert mistake(tmp_path, "rounds = 0") == (
        f"{at}rounds: it should be greater than or equal to 1 (got 0)"
    )
    assert mistake(tmp_path, "rounds = ").startswith(f"{at}not valid TOML: ")
    assert mistake(tmp_path, b"task = '\xff'").startswith(f"{at}not valid TOML: ")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.toml: cannot be read: No such file"):
        load_settings(config=tmp_path / "none.toml", environment={})
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        load_settings(config=tmp_path, environment={})


def test_a_mistake_in_the_environment_names_the_variable() -> None:
    assert mistake(environment={"FEDAQ_SEDE": "3"}) == (
        "environment FEDAQ_SEDE: sede is not a setting; did you mean seed?"
    )
    assert mistake(environment={"FEDAQ_FIXED__UPLINK_BITS": "17"}) == (
        "environment FEDAQ_FIXED__UPLINK_BITS: fixed.uplink_bits: "
        "1 to 16 bits, or 32 for raw float32, are possible (got 17)"
    )


def test_a_mistake_in_a_flag_names_the_flag() -> None:
    assert mistake(flags={"network.port": 70_000}) == (
        "--port: network.port: it should be less than or equal to 65535 (got 70000)"
    )
    assert mistake(flags={"fixed.uplink_bits": 0}).startswith("--uplink-bits: fixed.uplink_bits: ")


def test_a_mistake_in_an_assignment_repeats_it() -> None:
    assert mistake(assignments=("rounds",)) == "--set rounds: write it as key=value"
    assert mistake(assignments=("=3",)) == "--set =3: write it as key=value"
    assert mistake(assignments=("base=other",)) == (
        "--set base=other: base: it should be 'broadcast' or 'exact' (got 'other')"
    )
    assert mistake(assignments=("training.momentum=nan",)).startswith(
        "--set training.momentum=nan: training.momentum: it should be a finite number"
    )
    assert mistake(assignments=("task.name=x",)) == (
        "--set task.name=x: task: it should be a valid string"
    )


def test_the_source_that_is_named_is_the_one_that_is_wrong(tmp_path: Path) -> None:
    sentence = mistake(
        tmp_path, "[fixed]\nuplink_bits = 17", assignments=("fixed.downlink_bits=3",)
    )
    assert sentence.startswith(f"{tmp_path / 'run.toml'}: fixed.uplink_bits: ")


def test_a_conflict_names_everyone_who_may_have_caused_it(tmp_path: Path) -> None:
    assert mistake(tmp_path, "[fedaq]\nmin_bits = 9", assignments=("fedaq.max_bits=3",)) == (
        f"{tmp_path / 'run.toml'} and --set fedaq.max_bits=3: fedaq: min_bits 9 is above max_bits 3"
    )
    assert mistake(assignments=("fedaq.min_bits=9", "fedaq.max_bits=3")).startswith(
        "--set fedaq.min_bits=9 and --set fedaq.max_bits=3: fedaq: "
    )


@pytest.mark.parametrize(
    "assignment",
    [
        "clients=0",
        "seed=-1",
        "seed=9223372036854775808",
        "fixed.uplink_bits=31",
        "fixed.downlink_bits=-8",
        "fedaq.max_bits=17",
        "fedaq.uplink_resolution=0",
        "fedaq.downlink_resolution=-1",
        "energy.uplink.j_per_bit=-1",
        "network.chunk_bytes=1023",
        "network.chunk_bytes=2097153",
        "network.heartbeat_interval_s=0",
        "training.momentum=1",
        "training.learning_rate=inf",
    ],
)
def test_values_beyond_their_bounds_are_refused(assignment: str) -> None:
    key = assignment.partition("=")[0]
    assert mistake(assignments=(assignment,)).startswith(f"--set {assignment}: {key}: ")


@pytest.mark.parametrize("bits", [1, 16, 32])
def test_every_width_the_wire_knows_can_be_fixed(bits: int) -> None:
    assert load(assignments=(f"fixed.uplink_bits={bits}",)).fixed.uplink_bits == bits


def test_options_with_a_section_name_settings_that_are_there() -> None:
    options = settings_of(
        **dict.fromkeys((
            "server", "name", "partition", "radio", "give_up_after_s", "host", "port",
            "metrics_port", "dashboard_port", "tls", "tokens", "token_file", "insecure", "task",
        ))
    )  # fmt: skip
    there = flattened(Settings().model_dump())
    assert set(options) <= set(there)
    assert [name for name in options if "." not in name] == ["task"]
