"""The tasks of examples/lora, also where `peft` finds a torchvision for another torch."""

from kinds.others import imported_transformers

imported_transformers()

from lora.task import large, task, tiny  # noqa: E402

__all__ = ["large", "task", "tiny"]
