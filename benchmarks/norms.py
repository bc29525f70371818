"""Nets with BatchNorm beside the same with GroupNorm, and other models that keep statistics.

    python benchmarks/norms.py [--cifar DIR]

Trains each net with `fp32`, by default, and with budgets, each run in one process, and prints over
the seeds: the mean accuracy of the last test and the least of them, rounds whose loss is not
finite, bits per value up and down, and the share of statistics in the bytes of all transfers, mean
and most. The folder of --cifar is that of the task `cifar`; without it, the residual net is left
out.
"""

import argparse
import asyncio
import logging
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite
from multiprocessing import get_context
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
from fedaq.tasks import Examples, Task, Training, cifar, load_task
from fedaq.v1 import federation_pb2 as pb
from fedaq_lab.local import federate
from fedaq_server.records.ledger import Ledger
from fedaq_server.run import Run

Norm = Callable[[int], nn.Module]
CIFAR, PICTURES = "FEDAQ_NORMS_CIFAR", "FEDAQ_NORMS_PICTURES"


def _batch(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels)


_group = cifar.group_norm


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


def _pictures(task: Task, part: str) -> Examples:
    """Return as many pictures as were asked for, drawn from all there are."""
    data = task.train_data(None) if part == "train" else task.test_data(None)
    assert isinstance(data, Examples)
    most = int(os.environ[PICTURES]) // (1 if part == "train" else 5)
    # Files have their classes in an order of their own.
    taken = torch.randperm(len(data), generator=torch.Generator().manual_seed(1))[:most]
    return Examples(data.inputs[taken], data.targets[taken])


def residual(norm: Norm) -> Task:
    """Return ResNet-8 on pictures."""
    task = load_task("cifar", Path(os.environ[CIFAR]))
    return replace(
        task,
        model=partial(cifar.resnet, len(task.classes), norm, 1),
        train_data=lambda _: _pictures(task, "train"),
        test_data=lambda _: _pictures(task, "test"),
    )


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

# A task is found by its name, in this file.
plain_batch = replace(_digits, model=lambda: _plain(_batch))
plain_group = replace(_digits, model=lambda: _plain(_group))
mobile_batch = replace(_MOBILE, model=lambda: _mobile(_batch))
mobile_group = replace(_MOBILE, model=lambda: _mobile(_group))


def residual_batch(_: Path | None) -> Task:
    return residual(_batch)


def residual_group(_: Path | None) -> Task:
    return residual(_group)


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
    # The least of them pays for 0.1 bits per value both ways in all rounds.
    "residual": Net(("residual_batch", "residual_group"), 10, 20, (2.4, 0.8, 0.3)),
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


def trained(net: Net, device: str, task: str, assignments: list[str], seed: int) -> Result:
    """Run one federation."""
    logging.disable(logging.WARNING)
    own = {"task": f"norms:{task}", "clients": net.clients, "rounds": net.rounds, "seed": seed}
    settings = load_settings(
        environment={},
        flags={**own, "device": device, "capture": True},
        assignments=assignments,
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


def show(name: str, net: Net, device: str, seeds: range, pool: ProcessPoolExecutor) -> None:
    """Train a net in all ways, and print what came of it."""
    size = f"{net.clients} clients, at most {net.rounds} rounds"
    found = Table(title=f"{name}: {size}, seeds {seeds[0]} to {seeds[-1]}", box=None)
    columns = ("task", "settings", "accuracy", "least", "not finite", "rounds", "up", "down")
    for column in (*columns, "statistics", "most"):
        found.add_column(column, justify="right", no_wrap=True)
    ways = {"fp32": ["scheme=fp32"], "default": []}
    ways |= {f"{budget_j:g} J": [f"energy.budget_j={budget_j}"] for budget_j in net.budgets_j}
    begun = {
        (task, way): [pool.submit(trained, net, device, task, assignments, seed) for seed in seeds]
        for task in net.tasks
        for way, assignments in ways.items()
    }
    for (task, way), waited in begun.items():
        runs = [run.result() for run in waited]
        found.add_row(
            task, way,
            f"{mean(run.accuracy for run in runs):.4f}",
            f"{min(run.accuracy for run in runs):.4f}",
            str(sum(run.not_finite for run in runs)),
            f"{mean(run.rounds for run in runs):.0f}",
            f"{mean(run.bits_up for run in runs):.2f}",
            f"{mean(run.bits_down for run in runs):.2f}",
            f"{mean(run.share for run in runs):.1%}",
            f"{max(run.share for run in runs):.1%}",
        )  # fmt: skip
        # Each row takes minutes.
        print(*[list(column.cells)[-1] for column in found.columns], flush=True)
    console.print(found)


def main() -> None:
    """Read the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=1, help="seed")
    parser.add_argument("--net", choices=NETS, help="one of them only")
    parser.add_argument("--cifar", type=Path, help="folder of CIFAR-10")
    parser.add_argument("--pictures", type=int, default=1000, help="of it, to train with")
    parser.add_argument("--device", default="cpu", help="that trains and tests")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    options = parser.parse_args()
    if options.cifar is not None:
        os.environ |= {CIFAR: str(options.cifar.resolve()), PICTURES: str(options.pictures)}
    seeds = range(options.first, options.first + options.seeds)
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        for name in NETS if options.net is None else (options.net,):
            if name != "residual" or options.cifar is not None:
                show(name, NETS[name], options.device, seeds, pool)


if __name__ == "__main__":
    main()
