"""Speed of NVFlare's float16 filter on one thread; peers.py and archive.py run it.

    python nvflare_filter.py VALUES REPEATS

Prints the seconds of the fastest quantization and of the fastest restoration, the bytes of what is
sent and the root mean square error as JSON.
"""

import json
import logging
import sys
from time import perf_counter

import numpy as np
import torch
from nvflare.apis.fl_context import FLContext
from nvflare.app_opt.pt.quantization.dequantizer import ModelDequantizer
from nvflare.app_opt.pt.quantization.quantizer import ModelQuantizer


def main(values: int, repeats: int) -> None:
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    weights = np.random.default_rng(1).standard_normal(values, np.float32)
    quantizer, dequantizer, context = ModelQuantizer("float16"), ModelDequantizer(), FLContext()
    down, up = [], []
    for _ in range(repeats):
        params = {"weights": weights}
        began = perf_counter()
        coded, state, sources = quantizer.quantization(params, context)
        down.append(perf_counter() - began)
        size = coded["weights"].nbytes
        began = perf_counter()
        restored = dequantizer.dequantization(coded, state, "float16", sources, context)
        up.append(perf_counter() - began)
        assert np.allclose(restored["weights"], weights, atol=0.01)
    error = float(np.sqrt(np.mean(np.square(restored["weights"] - weights, dtype=np.float64))))
    found = {"quantize_s": min(down), "restore_s": min(up)}
    print(json.dumps({**found, "bytes": size, "error": error}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
