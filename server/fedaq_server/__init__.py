"""The server: rounds, aggregation, bit-length optimizer, schemes, records."""
