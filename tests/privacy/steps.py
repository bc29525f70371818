"""What a client sends in a round of masked updates, in its order."""

STEPS = ("range_report", "mask_shares", "share_check", "update", "chunk", "unmasking")
