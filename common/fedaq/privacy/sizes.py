"""The most that others may send of what has no fixed size, for whoever does without the rest."""

CERTIFICATE_BYTES, SIGNATURE_BYTES = 2048, 512
MOST_PROOF_BYTES = CERTIFICATE_BYTES + SIGNATURE_BYTES + 8
