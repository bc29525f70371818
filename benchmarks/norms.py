"""Nets with BatchNorm beside the same with GroupNorm, and other models that keep statistics.

    python benchmarks/norms.py [--cifar DIR]

Trains each net with `fp32`, by default, and with budgets, in one process, and prints over the
seeds: the mean accuracy of the last test and the least of them, rounds whose loss is not finite,
bits per value up and down, and the share of statistics in the bytes of all transfers. The folder
of --cifar has train/<class>/*.jpg and test/<class>/*.jpg; without it, that net is left out.
"""

import argparse
import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from fedaq.codec import headers, model
from fedaq.codec.chunks import Chunk, parse
from fedaq.codec.model import Kind
from fedaq.process.terminal import console
from fedaq.settings import load_settings
from fedaq.tasks import Examples, Task, Training, load_task
from fedaq.v1 import federation_pb2 as pb
from fedaq_lab.local import federate
from fedaq_server.records.ledger import Ledger
from fedaq_server.run import Run

Norm = Callable[[int], nn.Module]
CIFAR = "FEDAQ_NORMS_CIFAR"


def _batch(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels)


def _group(channels: int) -> nn.Module:
    return nn.GroupNorm(4, channels)


def _block(
    norm: Norm, before: int, after: int, *, size: int = 3, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    conv = nn.Conv2d(before, after, size, stride, padding=size // 2, groups=groups, bias=False)
    return [conv, norm(after), nn.ReLU()]


def _plain(norm: Norm) -> nn.Sequential:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), *_block(norm, 1, 16), *_block(norm, 16, 32), nn.MaxPool2d(2),
        *_block(norm, 32, 32), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


def _separable(norm: Norm, before: int, after: int, stride: int) -> list[nn.Module]:
    wide = 4 * before
    return [
        *_block(norm, before, wide, size=1), *_block(norm, wide, wide, stride=stride, groups=wide),
        *_block(norm, wide, after, size=1)[:-1],
    ]  # fmt: skip


def _mobile(norm: Norm) -> nn.Sequential:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), *_block(norm, 1, 8), *_separable(norm, 8, 8, 1),
        *_separable(norm, 8, 16, 2), *_separable(norm, 16, 16, 1), *_separable(norm, 16, 24, 2),
        *_separable(norm, 24, 24, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10),
    )  # fmt: skip


class _Residual(nn.Module):
    def __init__(self, norm: Norm, before: int, after: int) -> None:
        super().__init__()
        first = _block(norm, before, after, stride=after // before)
        self.main = nn.Sequential(*first, *_block(norm, after, after)[:-1])
        short = _block(norm, before, after, size=1, stride=after // before)[:-1]
        self.short = nn.Sequential(*short) if after > before else nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.relu(self.main(inputs) + self.short(inputs))


def _residual(norm: Norm) -> nn.Sequential:
    return nn.Sequential(
        *_block(norm, 3, 16), _Residual(norm, 16, 16), _Residual(norm, 16, 32),
        _Residual(norm, 32, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def _pictures(part: str) -> Examples:
    """Return the images of CIFAR-10 in half their size."""
    folder = Path(os.environ[CIFAR])
    task = load_task("images", folder)
    data = task.train_data(folder) if part == "train" else task.test_data(folder)
    assert isinstance(data, Examples)
    return Examples(nn.functional.avg_pool2d(data.inputs / 64 - 2, 2), data.targets)


def _with_average(module: nn.Sequential) -> nn.Module:
    """Keep a moving average of the last layer, as a hook of the module itself does."""
    last = module[-1]
    assert isinstance(last, nn.Linear)
    module.register_buffer("average", last.weight.detach().clone())

    def follow(own: nn.Module, inputs: object, outputs: object) -> None:
        if own.training:
            buffer = own.get_buffer("average")
            buffer.mul_(0.99).add_(last.weight.detach(), alpha=0.01)

    module.register_forward_hook(follow)
    return module


class _Observed(nn.Module):
    """Rounds activations to 8 bits in a range that it has seen, and counts what it saw."""

    low: Tensor
    high: Tensor
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(0.0))
        self.register_buffer("high", torch.tensor(1.0))
        self.register_buffer("seen", torch.tensor(0))

    def forward(self, values: Tensor) -> Tensor:
        if self.training:
            self.seen += 1
            self.low += 0.01 * (values.detach().min() - self.low)
            self.high += 0.01 * (values.detach().max() - self.high)
        scale = float(self.high - self.low) / 255
        # The rest of the network sees rounded values; gradients pass by.
        rounded = ((values - self.low) / scale).round().clamp(0, 255) * scale + self.low
        return values + (rounded - values).detach()


def _instance(channels: int) -> nn.Module:
    return nn.InstanceNorm2d(channels, affine=True, track_running_stats=True)


def _spectral() -> nn.Module:
    layers = list(_plain(_group))
    return nn.Sequential(*layers[:-1], spectral_norm(layers[-1]))


def _observed() -> nn.Module:
    layers = list(_plain(_batch))
    return nn.Sequential(*layers[:-1], _Observed(), layers[-1])


_digits = load_task("digits", None)
_MOBILE = replace(_digits, training=Training(2, 32, 0.05, 0.9))
_RESIDUAL = Task(
    "residual", lambda: _residual(_batch), lambda _: _pictures("train"),
    lambda _: _pictures("test"), Training(1, 32, 0.05, 0.9),
)  # fmt: skip

# A task is found by its name, in this file.
plain_batch = replace(_digits, model=lambda: _plain(_batch))
plain_group = replace(_digits, model=lambda: _plain(_group))
mobile_batch = replace(_MOBILE, model=lambda: _mobile(_batch))
mobile_group = replace(_MOBILE, model=lambda: _mobile(_group))
residual_batch = _RESIDUAL
residual_group = replace(_RESIDUAL, model=lambda: _residual(_group))
instance = replace(_digits, model=lambda: _plain(_instance))
spectral = replace(_digits, model=_spectral)
average = replace(_digits, model=lambda: _with_average(_plain(_batch)))
observed = replace(_digits, model=_observed)


@dataclass(frozen=True)
class Net:
    """What is trained, for how long, and with which budgets in joules."""

    tasks: tuple[str, ...]
    clients: int
    rounds: int
    budgets_j: tuple[float, ...]


NETS = {
    "plain": Net(("plain_batch", "plain_group"), 5, 20, (0.1,)),
    "mobile": Net(("mobile_batch", "mobile_group"), 3, 12, (0.1,)),
    "residual": Net(("residual_batch", "residual_group"), 3, 10, (0.15,)),
    "others": Net(("instance", "spectral", "average", "observed"), 5, 10, (0.1,)),
}


@dataclass(frozen=True)
class Result:
    """What a run came to; `share` is that of statistics in all bytes."""

    accuracy: float
    not_finite: int
    rounds: int
    bits_up: float
    bits_down: float
    share: float


def trained(net: Net, task: str, seed: int, assignments: list[str]) -> Result:
    """Run one federation."""
    own = {"task": f"norms:{task}", "clients": net.clients, "rounds": net.rounds, "seed": seed}
    settings = load_settings(
        environment={}, flags={**own, "capture": True}, assignments=assignments
    )
    with TemporaryDirectory() as folder:
        run = Run(settings, Ledger(Path(folder)), lambda record: None)
        asyncio.run(federate(run))
        records, share = run.records, share_of_statistics(Path(folder), net.clients)
    return Result(
        records[-1].test_accuracy,
        sum(not isfinite(record.test_loss) for record in records),
        len(records),
        mean(record.uplink_bits for record in records),
        mean(record.downlink_bits for record in records),
        share,
    )


def share_of_statistics(folder: Path, clients: int) -> float:
    """Return the share of statistics in the bytes of all transfers that were kept in a folder."""
    everything, own = 0, 0
    for path in (folder / "payloads").iterdir():
        kept = pb.CapturedPayload.FromString(path.read_bytes())
        spec = model.from_message(kept.model)
        header = headers.from_message(spec, kept.header)
        times = clients if kept.sender.startswith("server") else 1
        fine = [tensor.kind == Kind.STATISTICS for tensor in spec.tensors]
        for is_fine, code in zip(fine, header.codes, strict=True):
            everything += times * code.header_bytes
            own += times * code.header_bytes * is_fine
        for message in kept.chunks:
            chunk = parse(pb.ServerMessage(chunk=message).SerializeToString(), pb.ServerMessage)
            assert isinstance(chunk, Chunk)
            coded = list(message.coded_bytes)
            for number, piece in enumerate(header.pieces(chunk.offset, chunk.size)):
                plain = piece.data.stop - piece.data.start
                taken = times * ((coded[number] if coded else 0) or plain)
                everything += taken
                own += taken * fine[piece.tensor]
    return own / everything


def show(name: str, net: Net, seeds: int) -> None:
    """Train a net in all ways, and print what came of it."""
    found = Table(
        title=f"{name}: {net.clients} clients, at most {net.rounds} rounds, {seeds} seeds", box=None
    )
    columns = ("task", "settings", "accuracy", "least", "not finite", "rounds", "up", "down")
    for column in (*columns, "statistics"):
        found.add_column(column, justify="right", no_wrap=True)
    ways = {"fp32": ["scheme=fp32"], "default": []}
    ways |= {f"{budget_j:g} J": [f"energy.budget_j={budget_j}"] for budget_j in net.budgets_j}
    for task in net.tasks:
        for way, assignments in ways.items():
            runs = [trained(net, task, seed, assignments) for seed in range(1, seeds + 1)]
            found.add_row(
                task, way,
                f"{mean(run.accuracy for run in runs):.4f}",
                f"{min(run.accuracy for run in runs):.4f}",
                str(sum(run.not_finite for run in runs)),
                f"{mean(run.rounds for run in runs):.0f}",
                f"{mean(run.bits_up for run in runs):.2f}",
                f"{mean(run.bits_down for run in runs):.2f}",
                f"{mean(run.share for run in runs):.1%}",
            )  # fmt: skip
            # Each row takes minutes.
            print(*[list(column.cells)[-1] for column in found.columns], flush=True)
    console.print(found)


def main() -> None:
    """Read the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--net", choices=NETS, help="one of them only")
    parser.add_argument("--cifar", type=Path, help="folder of CIFAR-10 as images")
    options = parser.parse_args()
    if options.cifar is not None:
        os.environ[CIFAR] = str(options.cifar)
    logging.disable(logging.WARNING)
    for name in NETS if options.net is None else (options.net,):
        if name != "residual" or options.cifar is not None:
            show(name, NETS[name], options.seeds)


if __name__ == "__main__":
    main()
