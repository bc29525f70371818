"""The kinds of models of docs/reference/models.md, each as a task: ``--task kinds.zoo:lstm``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from fedaq.tasks import Examples, Task, Training
from fedaq.tasks.digits import task as digits
from kinds import others, own

Change = Callable[[Tensor], Tensor]


def flat(pixels: Tensor) -> Tensor:
    return pixels


def image(pixels: Tensor) -> Tensor:
    return pixels.view(-1, 1, 8, 8)


def rows(pixels: Tensor) -> Tensor:
    return pixels.view(-1, 8, 8)


def pixels_as_tokens(pixels: Tensor) -> Tensor:
    return (16 * pixels).long()


def squares_as_tokens(pixels: Tensor) -> Tensor:
    """Return the brightness of 16 squares of four pixels, 0 to 16."""
    return (16 * nn.functional.avg_pool2d(image(pixels), 2).flatten(1)).round().long()


def _changed(read: Callable[[Path | None], object], change: Change) -> Callable[..., Examples]:
    def data(path: Path | None) -> Examples:
        examples = read(path)
        assert isinstance(examples, Examples)
        return Examples(change(examples.inputs), examples.targets)

    return data


@dataclass(frozen=True)
class Kind:
    """One kind of model.

    Attributes
    ----------
    says : str
        What it is, for the table.
    model : callable
    inputs : callable
        Makes what the model takes of pixels from 0 to 1, shape (n, 64).
    batch : int
    rate : float
        Learning rate.
    rounds : int
        Until fp32 learns little more.
    optimizer : str
        With plain SGD, what attends stays where it is.
    needs : sequence of str
        Packages that are no dependency of fedaq.
    seeds : int
        Runs whose mean counts: more than one where equal runs differ by more than a scheme may.
    refused : str
        What the sentence says with which it is refused; empty for a kind that is trained.
    """

    says: str
    model: Callable[[], nn.Module]
    inputs: Change = flat
    batch: int = 16
    rate: float = 0.1
    rounds: int = 12
    optimizer: Literal["sgd", "adamw"] = "sgd"
    needs: Sequence[str] = ()
    refused: str = ""
    seeds: int = 1

    @cached_property
    def task(self) -> Task:
        """The digits with this model."""
        return replace(
            digits,
            name=self.says,
            model=self.model,
            train_data=_changed(digits.train_data, self.inputs),
            test_data=_changed(digits.test_data, self.inputs),
            training=Training(2, self.batch, self.rate, 0.5, self.optimizer),
        )

    @property
    def lacks(self) -> list[str]:
        """Packages that are not there."""
        return [package for package in self.needs if not others.has(package)]


def _others(
    says: str, model: Callable[[], nn.Module], inputs: Change, *needs: str, rounds: int = 12
) -> Kind:
    return Kind(says, model, inputs, rounds=rounds, needs=needs)


def _attending(
    says: str,
    model: Callable[[], nn.Module],
    inputs: Change,
    *needs: str,
    rounds: int = 12,
    seeds: int = 1,
) -> Kind:
    return Kind(says, model, inputs, 32, 0.005, rounds, "adamw", needs, seeds=seeds)


KINDS: dict[str, Kind] = {
    "mlp": Kind("fully connected", own.plain),
    "batch_norm": Kind("convolutions, BatchNorm", own.with_batch_norm, image),
    "group_norm": Kind("convolutions, GroupNorm", own.with_group_norm, image),
    "instance_norm": Kind(
        "convolutions, InstanceNorm with statistics", own.with_instance_norm, image
    ),
    "resnet": _others(
        "ResNet (timm), BatchNorm", others.resnet, image, "timm", "torchvision", rounds=15
    ),
    "mobilenet": _others(
        "MobileNetV2 (torchvision), depthwise, BatchNorm", others.mobilenet, image, "torchvision"
    ),
    "efficientnet": _others(
        "EfficientNet (torchvision), BatchNorm", others.efficientnet, image, "torchvision"
    ),
    "densenet": _others(
        "DenseNet (torchvision), BatchNorm", others.densenet, image, "torchvision", rounds=8
    ),
    "convnext": _attending(
        "ConvNeXt (torchvision), LayerNorm", others.convnext, image, "torchvision"
    ),
    "vit": _attending("Vision Transformer (timm)", others.vit, image, "timm", "torchvision"),
    "swin": _attending(
        "Swin Transformer (torchvision), integer buffers", others.swin, image, "torchvision"
    ),
    "bert": _attending(
        "BERT (transformers)", others.bert_scores, squares_as_tokens, "transformers",
        rounds=24, seeds=2,
    ),
    "gpt2": _attending(
        "GPT-2 (transformers)", others.gpt2_scores, squares_as_tokens, "transformers"
    ),
    "transformer": _attending("torch's TransformerEncoder", own.Encoder, rows),
    "lora": _attending(
        "LoRA (peft) on a frozen BERT", others.lora_bert, squares_as_tokens, "peft",
        "transformers", rounds=20,
    ),
    "lora_vit": Kind(
        "LoRA (peft) on a frozen ViT", others.lora_vit, image, 32, 0.001, 25, "adamw",
        ("peft", "timm", "torchvision"),
    ),
    "lstm": Kind("LSTM", own.lstm, rows, 16, 0.3, 20),
    "gru": Kind("GRU", own.gru, rows, 16, 0.3, 20),
    "embedding_bag": Kind(
        "EmbeddingBag, sparse gradients", own.Bag, pixels_as_tokens
    ),
    "tied": Kind("tied weights", own.tied),
    "weight_norm": Kind("weight_norm", own.weight_norm),
    "spectral_norm": Kind("spectral_norm", own.spectral_norm),
    "int8_base": Kind("adapters on frozen 8-bit weights", own.int8_base),
    "bfloat16": Kind("bfloat16 weights", own.bfloat16),
    "float16": Kind("float16 weights", own.float16),
    "float64": Kind("float64 weights", own.float64),
    "complex": Kind("complex weights", own.Complex),
    "compiled": Kind("torch.compile", own.compiled),
    "parallel": Kind("DataParallel, BatchNorm", own.parallel, image),
    "average": Kind("EMA copy of the weights, in buffers", own.WithAverage),
    "observers": Kind("fake quantization, observers that have seen data", own.observing),
    "new_observers": Kind("observers that have seen nothing", own.WithObservers,
                          refused="has NaN or infinity before any training"),
    "empty_and_scalar": Kind("empty and scalar tensors", own.EmptyAndScalar),
    "lazy": Kind("Lazy modules", own.lazy, refused="has no shape yet; give the lazy layer"),
    "extra_state": Kind("extra_state", own.ExtraState, refused="is a dict and no tensor"),
    "quantized": Kind("quantize_dynamic", own.quantize_dynamic,
                      refused="packed weights), so it cannot be sent"),
}  # fmt: skip


def __getattr__(name: str) -> Task:
    if name not in KINDS:
        raise AttributeError(name)
    return KINDS[name].task
