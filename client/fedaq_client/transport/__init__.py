"""The way to a server: gRPC, TLS, and why a connection does not come about.

What is said over it is in `session`, which works on any stream and does not know this room.
"""
