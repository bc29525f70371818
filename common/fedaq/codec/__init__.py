"""From float32 values to bytes and back: models, quantized tensors, entropy coding, chunks.

Both sides must compute the same here, to the bit (docs/reference/wire-format.md). No settings, no
sockets, no choice of how fine a tensor is coded.

For programs with a transport of their own, `encode`, `decode` and `estimate` make bytes of tensors,
and tensors of bytes (docs/reference/codec.md).
"""

from typing import TYPE_CHECKING

from fedaq.exports import exported

if TYPE_CHECKING:
    from fedaq.codec.archive import decode, encode, estimate
    from fedaq.errors import CodecError

_ARCHIVES = dict.fromkeys(("decode", "encode", "estimate"), "fedaq.codec.archive")
# Most who use modules of this room do without them.
__getattr__ = exported(__name__, {"CodecError": "fedaq.errors", **_ARCHIVES})

__all__ = ["CodecError", "decode", "encode", "estimate"]
