"""The next letter of a text, by a small GPT-2 whose own weights stay: only adapters are trained.

The text is that of Python's own help on its language, which every Python has.
"""

from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from fedaq.tasks import Examples, Metric, Task, Training, evaluate_tokens, trainer

BYTES = 256
LENGTH = 64
# Every so many pieces of the text, one is for the test.
EVERY = 8


class Letters(nn.Module):
    """Scores for the next byte at every place."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        config = GPT2Config(
            vocab_size=BYTES, n_positions=LENGTH, n_embd=width, n_layer=layers, n_head=8,
            bos_token_id=None, eos_token_id=None, use_cache=False,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )  # fmt: skip
        adapters = LoraConfig(r=4, lora_alpha=8, target_modules=["c_attn", "c_proj"])
        self.inner: Any = get_peft_model(GPT2LMHeadModel(config), adapters)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return scores, shape (n, length, 256)."""
        scores: Tensor = self.inner(tokens).logits
        return scores


def _loss(scores: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(scores.flatten(0, 1), targets.flatten())


def _pieces(*, test: bool, most: int | None = None) -> Examples:
    text = "".join(topics[name] for name in sorted(topics)).encode()
    letters = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
    pieces = letters[: len(letters) // (LENGTH + 1) * (LENGTH + 1)].view(-1, LENGTH + 1)
    own = (torch.arange(len(pieces)) % EVERY == 0) == test
    chosen = pieces[own][:most]
    return Examples(chosen[:, :-1], chosen[:, 1:])


def adapted(width: int, layers: int, most: int | None = None) -> Task:
    """Return the task with a model of some size, and at most so many pieces of text."""

    def train_data(data: Path | None) -> Examples:
        return _pieces(test=False, most=most)

    def test_data(data: Path | None) -> Examples:
        return _pieces(test=True, most=most)

    return Task(
        name="lora",
        model=lambda: Letters(width, layers),
        train_data=train_data,
        test_data=test_data,
        training=Training(1, 16, 0.003, optimizer="adamw"),
        train=trainer(_loss),
        evaluate=evaluate_tokens,
        metric=Metric("perplexity", higher_is_better=False),
    )


# 3 million weights; and 101 million beside next to none, to see what they take of the memory.
task = adapted(256, 4, most=400)
large, tiny = adapted(1024, 8, most=2), adapted(16, 1, most=2)
