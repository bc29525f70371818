"""What the server and the clients share: codec, wire format, energy model, tasks."""

__version__ = "0.1.0"
PROTOCOL_VERSION = 3
