"""Clients over gRPC: who is connected, their streams, how much they may send, who has gone silent.

A message is carried from a stream to whoever waits for it. What it means for the round is decided
in `rounds`, which this room does not know.
"""
