"""Text, character by character: the descriptions of data sets that scikit-learn carries.

About 43,000 characters. A client's part is a random share of pieces of 64.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from fedaq.metric import Metric
from fedaq.tasks import Examples, Task, Training, evaluate_tokens, trainer
from fedaq.tasks.carried import folder

# Printable ASCII and the end of a line; all else is one more.
CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))
PIECE = 64
TEST_EVERY = 5


class Recurrent(nn.Module):
    """A gated recurrent network over characters, which predicts the next one."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(CHARACTERS) + 1, 32)
        self.recurrent = nn.GRU(32, 96, batch_first=True)
        self.output = nn.Linear(96, len(CHARACTERS) + 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return scores, shape (n, tokens, characters)."""
        hidden, _ = self.recurrent(self.embedding(tokens))
        scores: Tensor = self.output(hidden)
        return scores


def _loss(scores: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(scores.flatten(0, 1), targets.flatten())


def _pieces() -> Tensor:
    """Return int64, shape (pieces, PIECE + 1): each ends with the first of what follows it."""
    paths = sorted((folder("text") / "descr").glob("*.rst"))
    text = "".join(path.read_text("utf-8") for path in paths)
    known = {character: number for number, character in enumerate(CHARACTERS)}
    tokens = torch.tensor([known.get(character, len(CHARACTERS)) for character in text])
    return tokens.unfold(0, PIECE + 1, PIECE).contiguous()


def _examples(*, for_testing: bool) -> Examples:
    pieces = _pieces()
    chosen = pieces[(torch.arange(len(pieces)) % TEST_EVERY == 0) == for_testing]
    return Examples(chosen[:, :-1].contiguous(), chosen[:, 1:].contiguous())


def _train_data(data: Path | None) -> Examples:
    return _examples(for_testing=False)


def _test_data(data: Path | None) -> Examples:
    return _examples(for_testing=True)


task = Task(
    name="text",
    model=Recurrent,
    train_data=_train_data,
    test_data=_test_data,
    training=Training(local_epochs=2, batch_size=16, learning_rate=0.005, optimizer="adamw"),
    train=trainer(_loss),
    evaluate=evaluate_tokens,
    metric=Metric("perplexity", higher_is_better=False),
)
