"""The command of a relay, flags in and a process out: from its settings to its results.

What it calls lies beside this room, and does not know it.
"""
