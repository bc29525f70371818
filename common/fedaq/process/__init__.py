"""A process of ours: its log, its terminal, its memory, how it is stopped. Nothing of learning."""
