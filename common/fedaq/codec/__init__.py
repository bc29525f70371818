"""From float32 values to bytes and back: models, quantized tensors, entropy coding, chunks.

Both sides must compute the same here, to the bit (docs/reference/wire-format.md). No settings, no
sockets, no choice of how fine a tensor is coded.
"""
