"""Private runs over gRPC: how much noise is in the model, what is charged, what is kept."""

import asyncio
import json
import logging
from contextlib import closing, suppress
from math import isnan, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedaq
from fedaq.errors import FedaqError
from fedaq.privacy import noise
from fedaq.settings import Settings
from fedaq_client import session
from fedaq_client.training import Learner
from fedaq_lab.local import federate as federate_here
from fedaq_server.privacy.account import epsilon_of
from fedaq_server.privacy.release import Release
from fedaq_server.records.ledger import Ledger
from fedaq_server.run import Run
from privacy.federation import Change, Done, dies_before, federate, settings_of, task_of
from privacy.test_seen import rows_of

VALUES, CLIENTS, EPSILON = 301, 6, 30.0
# Without a clip that adapts, updates are all of this length: each client's is longer.
CLIP = 1.0
PRIVATE: dict[str, Any] = {
    "privacy__epsilon": EPSILON, "privacy__clip": CLIP, "fedaq__uplink_resolution": None,
}  # fmt: skip
MODES = pytest.mark.parametrize("masked", [False, True], ids=["seen", "masked"])


def ran(folder: Path, changes: dict[int, Change] | None = None, **flags: Any) -> Done:
    chosen = {**PRIVATE, **flags}
    return asyncio.run(federate(folder / "run", changes or {}, CLIENTS, **chosen))


def release_of(done: Done) -> Release:
    account, masked = done.run.privacy, done.run.settings.privacy.secure_aggregation
    assert account is not None
    return Release(account.clip, account.multiplier, VALUES, CLIENTS, account.adapts, masked)


@MODES
def test_the_model_has_the_noise_that_the_account_says(tmp_path: Path, masked: bool) -> None:
    """Over all values and rounds; a fifth of it would be far outside."""
    rounds, models = 12, []
    commit = Ledger.commit

    def kept(self: Ledger, committed: Any) -> None:
        commit(self, committed)
        models.append(federation.model.copy())

    settings = settings_of(
        CLIENTS, rounds=rounds, **PRIVATE, privacy__secure_aggregation=masked,
        fedaq__downlink_resolution=2.0**-14,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patched, closing(Ledger(tmp_path)) as ledger:
        patched.setattr(Ledger, "commit", kept)
        run = Run(settings, ledger, lambda record: None, task_of(0))
        federation = run.federation
        patched.setattr(Learner, "train", _in_one_direction)
        asyncio.run(federate_here(run))
        assert run.privacy is not None
        release = Release(CLIP, run.privacy.multiplier, VALUES, CLIENTS, False, masked)
    steps = np.diff(np.array([np.ones(VALUES), *models]), axis=0) * CLIENTS / release.step
    noisy = steps - CLIENTS * CLIP / sqrt(VALUES) / release.step
    expected = run.privacy.multiplier * release.rounded
    if masked:
        # All six added their shares, which are made for three of them: four stay, one looks.
        expected *= sqrt(6 / 3)
    # Rounding adds at most a quarter of a square step for each client.
    assert noisy.std() == pytest.approx(expected, rel=6 / sqrt(2 * noisy.size))
    assert abs(noisy.mean()) < 6 * expected / sqrt(noisy.size)


def _in_one_direction(self: Learner, *others: Any, **more: Any) -> float:
    self.weights[:] = 5.0
    return 1.0


@MODES
def test_what_is_charged_is_what_the_accountant_says(tmp_path: Path, masked: bool) -> None:
    done = ran(tmp_path, rounds=3, privacy__secure_aggregation=masked)
    account = done.run.privacy
    assert account is not None
    told = [record.epsilon for record in done.records]
    assert told == [epsilon_of(account.multiplier, k, 1e-5) for k in (1, 2, 3)]
    assert 0.99 * EPSILON < told[-1] <= EPSILON
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert [entry["epsilon"] for entry in facts["rounds"]] == told
    assert facts["privacy"]["spent"] == told[-1]
    assert fedaq.load(tmp_path / "run").record.privacy["releases"] == 3


@MODES
def test_nothing_of_an_update_is_kept(
    tmp_path: Path, masked: bool, caplog: pytest.LogCaptureFixture
) -> None:
    # Whatever level other tests have set.
    caplog.set_level(logging.INFO, "fedaq_server")
    caplog.set_level(logging.INFO, "fedaq_client")
    done = ran(tmp_path, rounds=2, privacy__secure_aggregation=masked)
    assert "client-3 joined" in caplog.text
    assert "examples" not in caplog.text
    assert done.run.conduct.medians == done.run.conduct.magnitudes == []
    assert done.ranges == {}
    assert all(isnan(record.train_loss) for record in done.records)
    up = {t.payload_bytes for t in done.transfers if t.direction == "uplink"}
    assert len(up) == 1 or masked  # of keys, as many as there are clients


def test_what_is_written_follows_from_the_noisy_sum_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the noise of a test, the same in both runs: they differ in who sent what."""
    written = []
    for name, parts in (("first", (2, -1, 1, -2, 3, 0)), ("second", (-2, 3, 0, 2, -1, 1))):
        by_name = {f"client-{n}": float(part) for n, part in enumerate(parts, 1)}

        def trained(
            self: Learner, training: Any, seed: int, name: str, *others: Any,
            known: dict[str, float] = by_name, **more: Any,
        ) -> float:  # fmt: skip
            self.weights[:] = known[name]
            return known[name]

        with monkeypatch.context() as patched:
            patched.setattr(Learner, "train", trained)
            patched.setattr(noise, "entropy", np.random.default_rng(3).bytes)
            done = ran(
                tmp_path / name, rounds=2, privacy__secure_aggregation=False, privacy__clip=64.0
            )
        facts = rows_of(tmp_path / name / "run" / "ledger.sqlite")
        facts["run"] = [row for row in facts["run"] if row[0] not in ("id", "settings")]
        written.append((facts, done.model.tolist(), done.transfers))
    assert written[0] == written[1]


def test_a_fifth_of_the_clients_may_drop_out(tmp_path: Path) -> None:
    done = ran(tmp_path, {2: dies_before("update")}, rounds=1)
    [record] = done.records
    assert record.clients == 5
    assert 0.99 * EPSILON < record.epsilon <= EPSILON


@pytest.mark.parametrize(("step", "is_charged"), [("update", False), ("unmasking", True)])
def test_a_round_without_a_sum_is_charged_if_there_could_have_been_one(
    tmp_path: Path, step: str, is_charged: bool
) -> None:
    """Once shares are asked for, a server that is not honest could have it."""
    done = ran(tmp_path, {number: dies_before(step) for number in (1, 2, 5)}, rounds=1)
    [record] = done.records
    assert record.clients == 0
    assert (record.epsilon > 0) == is_charged
    np.testing.assert_array_equal(done.model, np.float32(1))


def test_an_update_that_is_not_clipped_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(session, "clip", lambda values, norm: True)
    monkeypatch.setattr(session, "shorten", lambda *arguments: None)
    with caplog.at_level(logging.WARNING):
        done = ran(tmp_path, rounds=1, privacy__secure_aggregation=False)
    [record] = done.records
    assert (record.clients, record.epsilon) == (0, 0.0)
    np.testing.assert_array_equal(done.model, np.float32(1))
    assert "is the most (privacy.clip)" in caplog.text


@MODES
def test_a_clip_that_adapts_comes_to_where_updates_are(tmp_path: Path, masked: bool) -> None:
    """Updates are n / 8 at each value, so half of them are longer than 0.44 times sqrt(301)."""
    done = ran(
        tmp_path, rounds=25, privacy__clip=None, privacy__epsilon=400.0,
        privacy__secure_aggregation=masked, limits__strikes=1000,
    )  # fmt: skip
    account = done.run.privacy
    assert account is not None
    first = 0.1 * sqrt(VALUES)
    assert 2 * first < account.clip < 10 * first
    kept = done.run.ledger
    assert kept.folder == tmp_path / "run"


class StoppedError(FedaqError):
    """What stops the server."""


def here(folder: Path, settings: Settings) -> tuple[int, int, float]:
    """Go on with a run in this process; return its rounds, releases and epsilon."""
    with closing(Ledger(folder)) as ledger:
        if ledger.settings() is None:
            ledger.begin(settings.model_dump(mode="json"))
        run = Run(settings, ledger, lambda record: None, task_of(1))
        assert run.privacy is not None
        with suppress(StoppedError):
            asyncio.run(federate_here(run))
        return ledger.rounds_done, run.privacy.releases, run.privacy.spent


@MODES
def test_a_server_that_is_stopped_forgets_nothing_that_was_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    masked: bool,
) -> None:
    """Stopped between a sum and its entry, it runs that round again, and one less in the end."""
    settings = settings_of(4, rounds=4, **PRIVATE, privacy__secure_aggregation=masked)

    def stop(self: Ledger, *arguments: Any) -> None:
        if self.rounds_done == 1:
            raise StoppedError("stopped")
        write_model(self, *arguments)

    write_model = Ledger.write_model
    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "write_model", stop)
        assert here(tmp_path, settings)[:2] == (1, 2)
    with closing(Ledger(tmp_path)) as ledger:
        assert ledger.privacy()["releases"] == 2
    with caplog.at_level(logging.WARNING):
        rounds, releases, spent = here(tmp_path, settings)
    assert (rounds, releases) == (3, 4)
    assert 0.99 * EPSILON < spent <= EPSILON
    assert "ends the run after 3 of 4 rounds" in caplog.text


@MODES
def test_joules_are_not_overspent_either(tmp_path: Path, masked: bool) -> None:
    chosen: dict[str, Any] = {"privacy__secure_aggregation": masked}
    free = ran(tmp_path / "free", rounds=2, **chosen)
    dearest_j = max(record.energy_j for record in free.records)
    budget_j = 2.5 * dearest_j
    done = ran(tmp_path, rounds=9, energy__budget=f"{budget_j:.9f}J", **chosen)
    spent_j = sum(record.energy_j for record in done.records)
    assert 1 <= len(done.records) < 9
    assert spent_j <= budget_j * (1 + 1e-12)
    assert budget_j - spent_j < 2 * dearest_j
    # Planned for nine rounds, of which these are a part.
    assert done.records[-1].epsilon < EPSILON / 1.5


def test_masked_and_private_runs_of_processes(tmp_path: Path) -> None:
    result = fedaq.run(
        "digits", clients=4, rounds=2, out=tmp_path / "run", engine="processes", progress=False,
        privacy={"secure_aggregation": True, "epsilon": 20.0},
    )  # fmt: skip
    first, second = result.rounds
    assert 0 < first.epsilon < second.epsilon <= 20.0
    assert (first.clients, second.clients) == (4, 4)
    assert result.record.privacy["releases"] == 2
    assert isnan(second.train_loss)
