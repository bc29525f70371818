"""What a run leaves on disk, and what is made of it later.

`record` is the format of ``run.json`` and `saved` reads it: neither needs torch or protobuf. This
room knows no protocol, no client and no scheme; it is given plain data, and measures nothing.
"""
