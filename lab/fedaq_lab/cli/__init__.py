"""The commands of the laboratory, one file each: flags in, a call out.

What they call lies beside this room, and does not know it.
"""
