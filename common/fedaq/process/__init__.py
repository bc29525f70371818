"""A process of ours: log, output, terminal, memory, forks, how it stops. Nothing of learning."""
