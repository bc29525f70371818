"""How a client trains in a round: what the server asks of all clients alike."""

from dataclasses import dataclass, replace
from math import cos, inf, pi
from typing import Literal

from fedaq.v1 import federation_pb2 as pb

MOST_EPOCHS, LARGEST_BATCH, MOST_ROUNDS = 10_000, 1_000_000, 1_000_000
# `Join.training`: what a client says that does all of a `Training`, one that leaves things out of
# its updates, too (`RoundPlan.keep`), and one that clips them (`RoundPlan.clipping`), as all do.
KNOWN, KNOWN_SPARSE, KNOWN_CLIPPING = 2, 3, 4

_OPTIMIZERS: dict[str, pb.Optimizer] = {"sgd": pb.OPTIMIZER_SGD, "adamw": pb.OPTIMIZER_ADAMW}
_SCHEDULES: dict[str, pb.Schedule] = {
    "constant": pb.SCHEDULE_CONSTANT,
    "cosine": pb.SCHEDULE_COSINE,
    "step": pb.SCHEDULE_STEP,
}


@dataclass(frozen=True)
class Training:
    """How a client trains in one round: plain SGD unless something else is said.

    `train_classifier` does all of it. A `train` of your own reads what it has a use for;
    `learning_rate` is then that of the round, whatever the schedule.

    Attributes
    ----------
    local_epochs : int
        Passes over its data, 1 to 10,000.
    batch_size : int
        Examples, 1 to 1,000,000.
    learning_rate : float
        Above 0.
    momentum : float
        Of SGD; 0 or more, below 1.
    optimizer : {"sgd", "adamw"}
        AdamW with torch's betas, 0.9 and 0.999, and epsilon, 1e-8.
    weight_decay : float
        0 or more. As torch has it: added to the gradient by SGD, decoupled from it by AdamW.
    schedule : {"constant", "cosine", "step"}
        Of the learning rate over the rounds of the run: the same in all, half a cosine that
        would reach 0 in the round after the last, or `step_factor` times what it was after every
        `step_rounds`.
    warmup_rounds : int
        Before the schedule, the learning rate rises in equal parts for so many rounds.
    step_rounds, step_factor : int, float
        1 or more; above 0 and 1 at most.
    proximal : float
        The mu of FedProx (arXiv 1812.06127): ``mu / 2 * |w - received|^2`` is added to the loss.
    clip_norm : float
        The largest L2 norm that the gradient of a batch has; a longer one is shortened. 0: any.
    mixed_precision : bool
        Compute in bfloat16 where torch's autocast does.
    keep_optimizer : bool
        Go on in a round with the moments of the last one, and do not begin with zeros.

    Raises
    ------
    ValueError
        If a value is none of those.
    """

    local_epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 0.05
    momentum: float = 0.5
    optimizer: Literal["sgd", "adamw"] = "sgd"
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine", "step"] = "constant"
    warmup_rounds: int = 0
    step_rounds: int = 10
    step_factor: float = 0.1
    proximal: float = 0.0
    clip_norm: float = 0.0
    mixed_precision: bool = False
    keep_optimizer: bool = False

    def __post_init__(self) -> None:
        wrong = self._wrong()
        if wrong:
            raise ValueError(f"{wrong}, which cannot be")

    def in_round(self, round_number: int, rounds: int) -> "Training":
        """Return what holds in one round: its learning rate is that of the schedule."""
        return replace(self, learning_rate=self.learning_rate * self._factor(round_number, rounds))

    def _factor(self, round_number: int, rounds: int) -> float:
        if round_number <= self.warmup_rounds:
            return round_number / (self.warmup_rounds + 1)
        done = round_number - self.warmup_rounds - 1
        if self.schedule == "cosine":
            left = max(rounds - self.warmup_rounds, done + 1)
            return (1 + cos(pi * done / left)) / 2
        if self.schedule == "step":
            # A factor of 0 would be no learning rate.
            return max(self.step_factor ** (done // self.step_rounds), 1e-30)
        return 1.0

    def _wrong(self) -> str | None:
        if not (
            1 <= self.local_epochs <= MOST_EPOCHS
            and 1 <= self.batch_size <= LARGEST_BATCH
            and 0 < self.learning_rate < inf
            and 0 <= self.momentum < 1
        ):
            return (
                f"{self.local_epochs} epochs in batches of {self.batch_size} "
                f"with learning rate {self.learning_rate:g} and momentum {self.momentum:g}"
            )
        right = {
            "optimizer": self.optimizer in _OPTIMIZERS,
            "weight_decay": 0 <= self.weight_decay < inf,
            "schedule": self.schedule in _SCHEDULES,
            "warmup_rounds": 0 <= self.warmup_rounds <= MOST_ROUNDS,
            "step_rounds": 1 <= self.step_rounds <= MOST_ROUNDS,
            "step_factor": 0 < self.step_factor <= 1,
            "proximal": 0 <= self.proximal < inf,
            "clip_norm": 0 <= self.clip_norm < inf,
        }
        wrong = [
            f"{name} {getattr(self, name)}" for name, is_right in right.items() if not is_right
        ]
        return " and ".join(wrong) or None


def is_plain(training: Training) -> bool:
    """Tell whether a client does it that knows the first four fields only."""
    first = Training(
        training.local_epochs, training.batch_size, training.learning_rate, training.momentum
    )
    return to_message(training) == to_message(first)


def to_message(training: Training) -> pb.Training:
    """Return it as it travels."""
    message = pb.Training(
        local_epochs=training.local_epochs,
        batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        momentum=training.momentum,
        optimizer=_OPTIMIZERS[training.optimizer],
        weight_decay=training.weight_decay,
        schedule=_SCHEDULES[training.schedule],
        warmup_rounds=training.warmup_rounds,
        proximal=training.proximal,
        clip_norm=training.clip_norm,
        mixed_precision=training.mixed_precision,
        keep_optimizer=training.keep_optimizer,
    )
    if training.schedule == "step":
        message.step_rounds, message.step_factor = training.step_rounds, training.step_factor
    return message


def from_message(message: pb.Training) -> Training:
    """Read what came from a server.

    Raises
    ------
    ValueError
        If it cannot be followed.
    """
    optimizers = {number: name for name, number in _OPTIMIZERS.items()}
    schedules = {number: name for name, number in _SCHEDULES.items()}
    training = Training(
        local_epochs=message.local_epochs,
        batch_size=message.batch_size,
        learning_rate=message.learning_rate,
        momentum=message.momentum,
        optimizer=optimizers.get(message.optimizer, str(message.optimizer)),  # type: ignore[arg-type]
        weight_decay=message.weight_decay,
        schedule=schedules.get(message.schedule, str(message.schedule)),  # type: ignore[arg-type]
        warmup_rounds=message.warmup_rounds,
        proximal=message.proximal,
        clip_norm=message.clip_norm,
        mixed_precision=message.mixed_precision,
        keep_optimizer=message.keep_optimizer,
    )
    if training.schedule != "step":
        return training
    return replace(training, step_rounds=message.step_rounds, step_factor=message.step_factor)
