"""The commands of the server's side, one file each, and what they print.

Here is what parses flags and speaks to a person. What a run does is in `run` and the rooms below;
nothing below imports from here.
"""
