"""An example: adapters (LoRA) on a transformer, learned by fedaq from text."""
