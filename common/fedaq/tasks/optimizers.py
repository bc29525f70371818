"""What a client takes its steps with: those of torch's SGD and AdamW.

To import `torch.optim` costs a second and 70 MB.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from fedaq.tasks.training import Training

# Of AdamW, as torch has them.
BETAS, EPSILON = (0.9, 0.999), 1e-8


@dataclass(frozen=True)
class Optimizer:
    """The weights that are trained, and what is remembered of their gradients.

    Attributes
    ----------
    training : Training
    weights : list of Tensor
    moments : list of lists of Tensor
        Of each weight: its velocity, or with AdamW the means of its gradient and of its square.
    steps : list of int
        That each weight has taken.
    """

    training: Training
    weights: list[Tensor]
    moments: list[list[Tensor]]
    steps: list[int]

    @classmethod
    def begun(cls, training: Training, weights: list[Tensor], kept: Any = None) -> "Optimizer":
        """Return one that begins with zeros, or with what `kept` has from `state`."""
        if kept is not None:
            moments = [
                [moment.to(weight.device) for moment in own]
                for weight, own in zip(weights, kept["moments"], strict=True)
            ]
            return cls(training, weights, moments, list(kept["steps"]))
        number = 2 if training.optimizer == "adamw" else 1
        zeros = [[torch.zeros_like(weight) for _ in range(number)] for weight in weights]
        return cls(training, weights, zeros, [0] * len(weights))

    def state(self) -> dict[str, Any]:
        """Return what `begun` goes on with."""
        return {"moments": self.moments, "steps": self.steps}

    def step(self, gradients: Sequence[Tensor | None]) -> None:
        """Move the weights; one without a gradient stays."""
        rule = _RULES[self.training.optimizer]
        with torch.no_grad():
            for place, gradient in enumerate(gradients):
                if gradient is not None:
                    self.steps[place] += 1
                    rule(
                        self.weights[place], gradient, self.moments[place], self.training,
                        self.steps[place],
                    )  # fmt: skip


def _sgd(
    weight: Tensor, gradient: Tensor, moments: list[Tensor], training: Training, steps: int
) -> None:
    [velocity] = moments
    if training.weight_decay:
        gradient = gradient.add(weight, alpha=training.weight_decay)
    torch.add(gradient, velocity, alpha=training.momentum, out=velocity)
    weight.sub_(velocity, alpha=training.learning_rate)


def _adamw(
    weight: Tensor, gradient: Tensor, moments: list[Tensor], training: Training, steps: int
) -> None:
    mean, square = moments
    weight.mul_(1 - training.learning_rate * training.weight_decay)
    mean.lerp_(gradient, 1 - BETAS[0])
    square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
    root = square.sqrt().div_(sqrt(1 - BETAS[1] ** steps)).add_(EPSILON)
    weight.addcdiv_(mean, root, value=-training.learning_rate / (1 - BETAS[0] ** steps))


_RULES: dict[str, Callable[[Tensor, Tensor, list[Tensor], Training, int], None]] = {
    "sgd": _sgd,
    "adamw": _adamw,
}


def drawn_back(
    gradients: Sequence[Tensor | None], weights: Sequence[Tensor], anchors: Sequence[Tensor],
    strength: float,
) -> list[Tensor | None]:  # fmt: skip
    """Return gradients with FedProx's added: ``strength * (weight - anchor)``."""
    with torch.no_grad():
        return [
            None if gradient is None else gradient.add(weight - anchor, alpha=strength)
            for gradient, weight, anchor in zip(gradients, weights, anchors, strict=True)
        ]


def clipped(gradients: Sequence[Tensor | None], norm: float) -> list[Tensor | None]:
    """Return gradients whose L2 norm, of all together, is `norm` at the most."""
    norms = [torch.linalg.vector_norm(gradient) for gradient in gradients if gradient is not None]
    if not norms:
        return list(gradients)
    # As torch.nn.utils.clip_grad_norm_ has it.
    factor = (norm / (torch.linalg.vector_norm(torch.stack(norms)) + 1e-6)).clamp(max=1.0)
    return [None if gradient is None else gradient * factor for gradient in gradients]
