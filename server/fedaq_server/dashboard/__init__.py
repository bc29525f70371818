"""The page to watch a run on (docs/dashboard.md)."""
