"""Statistics of the model as it is, measured on data."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedaq.tasks import Examples, measure_statistics

FEATURES = 5


def examples(count: int) -> Examples:
    inputs = 3 + 2 * torch.randn(count, FEATURES, generator=torch.Generator().manual_seed(1))
    return Examples(inputs, torch.zeros(count, dtype=torch.int64))


def test_of_one_batch_they_are_its_mean_and_variance() -> None:
    layer, data = nn.BatchNorm1d(FEATURES), examples(200)
    measure_statistics(nn.Sequential(layer), data, 1)
    assert torch.allclose(layer.get_buffer("running_mean"), data.inputs.mean(0), atol=1e-5)
    assert torch.allclose(layer.get_buffer("running_var"), data.inputs.var(0), atol=1e-4)


@pytest.mark.parametrize("momentum", [0.1, 0.9, None])
def test_all_batches_count_alike_and_the_layer_keeps_its_momentum(momentum: float | None) -> None:
    layer, data = nn.BatchNorm1d(FEATURES, momentum=momentum), examples(1000)
    measure_statistics(nn.Sequential(layer), data, 1)
    assert torch.allclose(layer.get_buffer("running_mean"), data.inputs.mean(0), atol=1e-5)
    assert layer.momentum == momentum


def test_a_last_example_alone_is_no_batch() -> None:
    layer, data = nn.BatchNorm1d(FEATURES), examples(251)
    measure_statistics(nn.Sequential(layer), data, 1)
    assert torch.allclose(layer.get_buffer("running_mean"), data.inputs.mean(0), atol=1e-5)


def test_a_dataset_is_measured_like_examples() -> None:
    data = examples(300)
    layers = nn.BatchNorm1d(FEATURES), nn.BatchNorm1d(FEATURES)
    measure_statistics(layers[0], data, 1)
    measure_statistics(layers[1], TensorDataset(data.inputs, data.targets), 1)
    assert torch.equal(layers[0].get_buffer("running_var"), layers[1].get_buffer("running_var"))


def test_instance_normalization_is_measured() -> None:
    layer = nn.InstanceNorm1d(FEATURES, track_running_stats=True)
    inputs = torch.randn(300, FEATURES, 8, generator=torch.Generator().manual_seed(1)) + 2
    measure_statistics(layer, Examples(inputs, torch.zeros(300)), 1)
    assert torch.allclose(layer.get_buffer("running_mean"), inputs.mean((0, 2)), atol=1e-5)


def test_other_layers_act_as_in_a_test() -> None:
    layer, data = nn.BatchNorm1d(FEATURES), examples(200)
    measure_statistics(nn.Sequential(nn.Dropout(0.9), layer), data, 1)
    assert torch.allclose(layer.get_buffer("running_var"), data.inputs.var(0), atol=1e-4)


def test_a_layer_that_training_does_not_update_is_left_alone() -> None:
    class Fixed(nn.BatchNorm1d):
        def train(self, mode: bool = True) -> "Fixed":
            super().train(False)
            return self

    layer = Fixed(FEATURES)
    before: list[Tensor] = [value.clone() for value in layer.buffers()]
    measure_statistics(nn.Sequential(layer), examples(200), 1)
    assert all(map(torch.equal, before, layer.buffers()))
