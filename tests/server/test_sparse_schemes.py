"""The schemes stc and topk: their settings, their steps, and a run against their definition."""

import asyncio
from math import ceil
from pathlib import Path

import numpy as np
import pytest

from fedaq.cli.inspection import read_payload
from fedaq.codec.model import Kind, ModelSpec, TensorSpec
from fedaq.codec.quantizer import Floats, Spread, tensor_spread
from fedaq.codec.sparse import Sparsity
from fedaq.errors import UserError
from fedaq.settings import Settings, load_settings
from fedaq_lab.local import federate
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.record import RoundRecord
from fedaq_server.run import Run
from fedaq_server.schemes.loading import load_scheme
from fedaq_server.schemes.sparse import sparsity_of, step_grant

SPEC = ModelSpec((TensorSpec("w", (5,)), TensorSpec("b", (2,))))
CLIENTS, ROUNDS = 3, 5


def settings(*assignments: str) -> Settings:
    return load_settings(environment={}, assignments=assignments)


# ---- Settings ----------------------------------------------------------------


def test_a_fraction_is_a_ratio_or_a_number() -> None:
    for text in ("1/400", "0.0025", "2.5e-3"):
        kept = sparsity_of(settings("scheme=stc", f"stc.fraction={text}"))
        assert kept == Sparsity(1 / 400, ternary=True)
    assert sparsity_of(settings("scheme=topk", "topk.fraction=1")) == Sparsity(1, ternary=False)
    assert sparsity_of(settings("scheme=fedaq", "topk.fraction=1/3")) is None


@pytest.mark.parametrize("text", ["0", "1/0", "5/4", "half", "-1/4", "nan"])
def test_an_impossible_fraction_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=f"--set stc.fraction={text}"):
        settings(f"stc.fraction={text}")


@pytest.mark.parametrize("name", ["stc", "topk"])
def test_differences_go_down_entropy_coded(name: str) -> None:
    chosen = settings(f"scheme={name}")
    assert (chosen.entropy, chosen.differences, chosen.added_to) == (True, True, "exact")
    with pytest.raises(UserError, match="a part of what clients lack, never the model"):
        load_scheme(settings(f"scheme={name}", "coding.downlink=model"))
    with pytest.raises(UserError, match="it would forget what was left out"):
        load_scheme(settings(f"scheme={name}", "base=broadcast"))


# ---- Steps -------------------------------------------------------------------


def spread(*values: float) -> Spread:
    return tensor_spread(np.array(values, np.float32))


def test_steps_reach_the_largest_value() -> None:
    for peak in np.random.default_rng(1).lognormal(0, 3, 200):
        for levels in (1, 3, 7, 127):
            found = spread(0.0, -float(peak))
            grant = step_grant(SPEC, (found, spread(0.0, 0.0)), levels)
            assert found.lo >= -levels * grant.steps[0]
            assert grant.steps[0] == pytest.approx(-found.lo / levels, rel=2e-7)
            # The sign is known where there is one.
            assert grant.bits[0] == levels.bit_length()


def test_ternary_codes_take_two_bits_at_the_most() -> None:
    grant = step_grant(SPEC, (spread(-0.3, 0.0, 0.3), spread(0.0, 0.3)), 1)
    assert grant.bits == (2, 1)
    assert grant.steps == (float(np.float32(0.3)),) * 2


def test_statistics_are_coded_over_their_range() -> None:
    spec = ModelSpec((TensorSpec("w", (2,)), TensorSpec("s", (2,), kind=Kind.STATISTICS)))
    grant = step_grant(spec, (spread(-0.3, 0.3), spread(-4.0, 9.0)), 1)
    assert (grant.bits, grant.steps[1]) == ((2, 8), 0.0)


# ---- A run -------------------------------------------------------------------


def by_the_paper(values: Floats, share: float) -> Floats:
    """Return what algorithm 1 of arXiv 1903.02891 makes of a tensor."""
    count = ceil(share * values.size)
    places = np.argsort(-np.abs(values), kind="stable")[:count]
    out = np.zeros(values.size)
    out[places] = np.sign(values[places]) * np.abs(values[places].astype(np.float64)).mean()
    return out.astype(np.float32)


def test_both_directions_are_those_of_the_paper(tmp_path: Path) -> None:
    """Each round follows from the captured payloads and the model of the round before."""
    share = 1 / 20
    wanted = settings(
        "task=digits", f"clients={CLIENTS}", f"rounds={ROUNDS}", "scheme=stc", "capture=true",
        f"stc.fraction={share}",
    )  # fmt: skip
    models: list[Floats] = []
    examples: dict[str, int] = {}

    def note(record: RoundRecord) -> None:
        models.append(run.federation.model.copy())
        examples.update({one.name: one.examples for one in run.federation.roster.everyone()})

    run = Run(wanted, Ledger(tmp_path), note)
    spec, model = run.spec, run.federation.model.copy()
    held = model.copy()
    asyncio.run(federate(run))
    assert len(examples) == CLIENTS
    for number, after in enumerate(models, 1):
        down = sent(tmp_path, number, "server")
        lacking = model - held
        for part in spec.slices:
            expected = by_the_paper(lacking[part], share)
            assert np.array_equal(np.sign(down[part]), np.sign(expected))
            np.testing.assert_allclose(down[part], expected, rtol=1e-6)
        held += down
        mean = np.zeros(spec.parameters)
        for name, weight in examples.items():
            update = sent(tmp_path, number, name)
            mean += weight / sum(examples.values()) * update
            for part in spec.slices:
                sizes = np.abs(update[part][update[part] != 0])
                assert 0 < sizes.size <= ceil(share * update[part].size)
                assert np.unique(sizes).size == 1
        np.testing.assert_allclose(after, model + mean, atol=1e-6)
        model = after
    history = run.federation.history
    assert history is not None
    assert held.tobytes() == history.held.tobytes()
    assert [record.clients for record in run.records] == [CLIENTS] * ROUNDS
    assert run.records[-1].downlink_bits < 0.7


def sent(folder: Path, number: int, sender: str) -> Floats:
    path = folder / "payloads" / f"round-{number:04}-{sender}.payload"
    return read_payload(path, path.read_bytes()).values()
