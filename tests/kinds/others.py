"""Kinds of models that torchvision, timm, transformers and peft make, small, for the digits.

All weights are random: nothing is fetched.
"""

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

_kept: list[Any] = []


def _torchvision() -> Any:
    """Import torchvision also where its compiled operators are made for another torch.

    None of these models uses them, but torchvision does not start where they are unknown.
    """
    if not _kept and not hasattr(torch.ops.torchvision, "nms"):
        unknown = torch.library.Library("torchvision", "FRAGMENT")
        _kept.append(unknown)  # it forgets them when it goes
        try:
            import torchvision
        except RuntimeError:
            for name in ("nms", "qnms"):
                unknown.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision.models

    return torchvision.models


def imported_transformers() -> Any:
    """Import transformers, which imports torchvision where it finds it."""
    if has("torchvision"):
        _torchvision()
    import transformers

    return transformers


def has(package: str) -> bool:
    """Tell whether a package is installed."""
    return find_spec(package) is not None


def resnet() -> nn.Module:
    _torchvision()
    from timm.models.resnet import BasicBlock, ResNet

    return ResNet(  # type: ignore[no-any-return]
        BasicBlock, [1, 1, 1, 1], channels=(8, 16, 32, 48), num_classes=10, in_chans=1,
        stem_type="deep", stem_width=8,
    )  # fmt: skip


def mobilenet() -> nn.Module:
    stages = [[1, 16, 1, 1], [4, 24, 2, 2], [4, 32, 1, 1]]
    return nn.Sequential(
        _Grey(),
        _torchvision().MobileNetV2(10, 0.5, stages, dropout=0.0, round_nearest=4),
    )


class _Grey(nn.Module):
    """Gives an image three channels, and twice the size."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.interpolate(images.expand(-1, 3, -1, -1), scale_factor=2)


def efficientnet() -> nn.Module:
    models = _torchvision()
    block = models.efficientnet.MBConvConfig
    stages = [block(1, 3, 1, 16, 16, 1, 1.0, 1.0), block(4, 3, 2, 16, 24, 2, 1.0, 1.0)]
    return nn.Sequential(_Grey(), models.EfficientNet(stages, 0.0, num_classes=10, last_channel=96))


def convnext() -> nn.Module:
    models = _torchvision()
    stages = [models.convnext.CNBlockConfig(24, 48, 1), models.convnext.CNBlockConfig(48, None, 1)]
    return nn.Sequential(_Grey(), models.ConvNeXt(stages, layer_scale=1.0, num_classes=10))


def densenet() -> nn.Module:
    return nn.Sequential(_Grey(), _torchvision().DenseNet(8, (2, 2), 16, bn_size=2, num_classes=10))


def swin() -> nn.Module:
    return nn.Sequential(
        _Grey(),
        _torchvision().SwinTransformer(
            [2, 2], 24, [1, 1], [2, 2], [4, 4], 2.0, stochastic_depth_prob=0.0, num_classes=10
        ),
    )


def vit() -> nn.Module:
    _torchvision()
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(  # type: ignore[no-any-return]
        img_size=8, patch_size=2, in_chans=1, num_classes=10, embed_dim=32, depth=2, num_heads=4,
        mlp_ratio=2,
    )  # fmt: skip


class Logits(nn.Module):
    """A model of transformers that gives nothing but its scores."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, tokens: Tensor) -> Tensor:
        scores: Tensor = self.inner(tokens).logits
        return scores


def bert() -> Any:
    package = imported_transformers()
    return package.BertForSequenceClassification(
        package.BertConfig(
            vocab_size=17, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=64, max_position_embeddings=16, num_labels=10,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )
    )  # fmt: skip


def gpt2() -> Any:
    package = imported_transformers()
    return package.GPT2ForSequenceClassification(
        package.GPT2Config(
            vocab_size=18, n_positions=16, n_embd=32, n_layer=2, n_head=4, num_labels=10,
            pad_token_id=17, bos_token_id=None, eos_token_id=None,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )
    )  # fmt: skip


def bert_scores() -> nn.Module:
    return Logits(bert())


def gpt2_scores() -> nn.Module:
    return Logits(gpt2())


def adapted(inner: Any, *targets: str, head: str) -> nn.Module:
    """Return a model of which adapters of rank 8 and the head are trained."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=8, lora_alpha=16, target_modules=list(targets), modules_to_save=[head], lora_dropout=0.0
    )
    module: nn.Module = get_peft_model(inner, config)
    return module


def lora_bert() -> nn.Module:
    return Logits(adapted(bert(), "query", "value", "dense", head="classifier"))


def lora_vit() -> nn.Module:
    return adapted(vit(), "qkv", "proj", "fc1", "fc2", head="head")
