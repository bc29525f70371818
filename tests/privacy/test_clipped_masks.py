"""A client that is to add noise to a masked update: what it adds, and what it refuses."""

from typing import Any

import numpy as np
import pytest

from fedaq.codec.common_grid import reached_code
from fedaq.codec.model import ModelSpec, TensorSpec
from fedaq.codec.payload import Payload
from fedaq.codec.quantizer import Key
from fedaq.codec.subset import Subset
from fedaq.errors import FedaqError
from fedaq.privacy.layout import layout_of
from fedaq.privacy.member import MaskingError
from fedaq.privacy.noise import MOST_DEVIATION
from fedaq.v1 import federation_pb2 as pb
from fedaq_client.demands import checked_plan
from fedaq_client.masked import Masked, _noisy

# Beyond a block of values, and of a width that words of 16 bits have to spare.
VALUES, WIDTH = 70_000, 13


def update(count: int) -> Masked:
    spec = ModelSpec((TensorSpec("t", (VALUES,)),))
    code = reached_code(1.0, 8.0)
    return Masked(
        np.full(VALUES, 3.0, np.float32), Payload(spec, (code,)), Subset(spec, 1, 1),
        layout_of((VALUES,), (WIDTH,)), 1, (Key(1, 2),), (count, 0), private=True,
    )  # fmt: skip


def test_noise_is_in_every_value_and_in_the_count() -> None:
    plain = update(512)
    words_of = _noisy(plain, pb.MaskRoster(noise=40.0, count_noise=900.0))
    [segment, figures] = plain.layout.segments
    noise = np.concatenate([
        (words_of(0, block) - plain.words(0, block)).view(np.int16) for block in segment.blocks()
    ])  # fmt: skip
    assert noise.std() == pytest.approx(40.0, rel=0.02)
    assert abs(noise.mean()) < 1
    [block] = figures.blocks()
    drawn = [words_of(1, block).view(np.int64) for _ in range(200)]
    assert np.std([each[0] - 512 for each in drawn]) == pytest.approx(900.0, rel=0.4)
    assert {int(each[1]) for each in drawn} == {0}


def test_without_a_count_there_is_no_noise_on_it() -> None:
    words_of = _noisy(update(0), pb.MaskRoster(noise=5.0))
    assert words_of(1, slice(0, 2)).tolist() == [0, 0]


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"noise": -1.0},
        {"noise": 2 * MOST_DEVIATION},
        {"noise": float("nan")},
        {"noise": 1.0, "count_noise": -1.0},
    ],
)
def test_a_client_leaves_a_server_that_asks_for_no_noise(asked: dict[str, Any]) -> None:
    with pytest.raises(MaskingError, match="the server asks for noise of"):
        _noisy(update(0), pb.MaskRoster(**asked))


@pytest.mark.parametrize(
    "clipping",
    [
        {"norm": 0.0, "rounded": 5.0},
        {"norm": 1.0, "rounded": 0.0},
        {"norm": float("inf"), "rounded": 1.0},
        {"norm": 1.0, "rounded": float("nan")},
    ],
)
def test_a_clip_that_cannot_be_is_refused(clipping: dict[str, Any]) -> None:
    with pytest.raises(FedaqError, match="which cannot be"):
        checked_plan(pb.RoundPlan(round=1, clipping=pb.Clipping(**clipping)))
