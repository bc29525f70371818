"""The commands of the client's side, one file each, and what they print.

What a client does in a run is in `session` and `training`; nothing there imports from here.
"""
