"""The client: trains, reports ranges, sends the bits it was granted."""
