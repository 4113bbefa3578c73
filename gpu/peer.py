#!/usr/bin/env python3
"""The same shape in PyTorch transformers with SDPA attention: prefill of pieces and decode at batch 1, in the units of
engine-bench, one JSON object a line. Random BF16 weights; times by CUDA events, medians after one run not timed."""

import json
import statistics

import torch
from transformers import DynamicCache, Qwen3Config, Qwen3ForCausalLM

REPETITIONS = 5
DECODED = 16


def milliseconds(work):
    work()
    times = []
    for _ in range(REPETITIONS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def report(name, shape, n, ms):
    print(json.dumps({"pass": name, "model": "qwen3-8b", "shape": shape, "ms": ms, "tokens_s": n / ms * 1e3,
                      "peer": "transformers", "torch": torch.__version__}), flush=True)


@torch.inference_mode()
def main():
    config = Qwen3Config(
        vocab_size=151936, hidden_size=4096, intermediate_size=12288, num_hidden_layers=36, num_attention_heads=32,
        num_key_value_heads=8, head_dim=128, tie_word_embeddings=False, max_position_embeddings=131072,
        rope_theta=1e6, attn_implementation="sdpa")
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = Qwen3ForCausalLM(config).eval()
    for n in (512, 4096, 16384):
        ids = torch.randint(0, config.vocab_size, (1, n), device="cuda")
        # The body alone: engine-bench counts no logits of a prompt either.
        report("prefill", f"{n} over 0", n, milliseconds(lambda: model.model(ids, use_cache=True)))
    for context in (512, 8192):
        ids = torch.randint(0, config.vocab_size, (1, context), device="cuda")
        cache = DynamicCache()
        model.model(ids, past_key_values=cache, use_cache=True)
        token = ids[:, :1]

        def decode():
            for _ in range(DECODED):
                model(token, past_key_values=cache, use_cache=True).logits.argmax(-1)
            cache.crop(context)

        report("decode", f"1 over {context}", 1, milliseconds(decode) / DECODED)


if __name__ == "__main__":
    main()
