"""Generated from ``protos/fedaq/v1`` by ``make protos``; do not edit."""
