"""What a run leaves on disk, and what is made of it later.

`record` is the format of ``run.json`` and `saved` reads it: neither needs torch or protobuf. This
room is given plain data and measures nothing. Of the wire it knows only what `capture` keeps of a
payload; it knows no client and no scheme.
"""
