"""Differential privacy: what a run may tell of a client, what it has told, and by which noise.

Nothing here sends, receives or writes (docs/explanation/differential-privacy.md).
"""
