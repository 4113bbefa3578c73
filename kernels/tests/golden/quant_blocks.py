"""Writes quant_blocks.safetensors: random valid blocks of every number format and the values gguf decodes them to.

    python -m venv /tmp/venv && /tmp/venv/bin/pip install gguf==0.19.0 numpy==2.4.6 safetensors==0.8.0
    /tmp/venv/bin/python quant_blocks.py
"""

import pathlib

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from safetensors.numpy import save_file

# Format, number of blocks, and where its half-precision scales lie in a block.
FORMATS = [
    (GGMLQuantizationType.F16, 512, [0]),
    (GGMLQuantizationType.BF16, 512, []),
    (GGMLQuantizationType.Q8_0, 12, [0]),
    (GGMLQuantizationType.Q5_0, 12, [0]),
    (GGMLQuantizationType.Q4_K, 12, [0, 2]),
    (GGMLQuantizationType.Q6_K, 12, [208]),
]

# The first blocks get these scales: both zeros, the least subnormal, the greatest value, one.
EDGE_SCALES = np.array([0.0, -0.0, 2.0**-24, 65504.0, 1.0], dtype=np.float16)


def blocks(rng, n, n_bytes, scales):
    """Random bytes, with finite scales of a plausible size."""
    block = rng.integers(0, 256, size=(n, n_bytes), dtype=np.uint8)
    for i, at in enumerate(scales):
        scale = rng.normal(0, 0.02, size=n).astype(np.float16)
        scale[: len(EDGE_SCALES)] = np.roll(EDGE_SCALES, i)
        block[:, at : at + 2] = scale.view(np.uint8).reshape(n, 2)
    return block


def main():
    rng = np.random.default_rng(20250101)
    tensors = {}
    for dtype, n, scales in FORMATS:
        _, n_bytes = GGML_QUANT_SIZES[dtype]
        block = blocks(rng, n, n_bytes, scales)
        if dtype == GGMLQuantizationType.BF16:
            block[:, 1] &= 0xBF  # no infinity, no NaN
        values = dequantize(block.reshape(-1), dtype).astype(np.float32)
        assert np.isfinite(values).all()
        tensors[f"{dtype.name}.bytes"] = block.reshape(-1)
        tensors[f"{dtype.name}.f32"] = values.reshape(-1)
    save_file(tensors, pathlib.Path(__file__).with_suffix(".safetensors"))


main()
