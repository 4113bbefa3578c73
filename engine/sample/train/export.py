"""Writes a trained model as GGUF and proves the file: what is read back from it must compute what was trained.

    export.py target --tokenizer tokenizer.json --checkpoint target.pt --out target.gguf [--binary target/release/reprise]

Matrices are BF16, norms F32; tokenizer and chat template are inside. Three checks: the file's tensors are the trained
ones rounded to BF16, bit for bit; the file's tokenizer tables give the trained tokenizer's ids; `reprise logits` on the
file agrees with PyTorch on the trained weights.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, models

from corpus import HELD_OUT, REPOSITORY, Corpus, default_binary
from evaluate import load
from model import n_parameters
from tokenizer import ADDED, END_OF_TEXT, SPECIAL, TURN_END

CHAT_TEMPLATE = REPOSITORY / "engine" / "data" / "chatml.jinja"
# Largest mean squared difference of logits, relative to their mean square. The engine rounds what a matrix reads to
# BF16 (2^-9 relative), the reference here does not.
MAX_NMSE = 1e-3
CHECKED_TOKENS = 700
BLOCK_NAMES = {
    "attention_norm": "attn_norm",
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "q_norm": "attn_q_norm",
    "k_norm": "attn_k_norm",
    "output": "attn_output",
    "ffn_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}


def gguf_name(name):
    """The GGUF name of a weight: `blocks.2.q.weight` is `blk.2.attn_q.weight`."""
    if name == "embedding.weight":
        return "token_embd.weight"
    if name == "norm.weight":
        return "output_norm.weight"
    _, index, part, _ = name.split(".")
    return f"blk.{index}.{BLOCK_NAMES[part]}.weight"


def rounded(weight):
    """A weight as the file holds it: matrices in BF16."""
    return weight.detach().to(torch.bfloat16 if weight.ndim == 2 else torch.float32).contiguous()


def add_shape(writer, config):
    """The metadata of the architecture."""
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.ffn)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.norm_eps)


def add_tokenizer(writer, tokenizer):
    """The tokenizer's tables and the chat template."""
    tables = json.loads(tokenizer.to_str())["model"]
    tokens = [tokenizer.id_to_token(index) for index in range(tokenizer.get_vocab_size())]
    kinds = {mark: gguf.TokenType.CONTROL for mark in SPECIAL} | {mark: gguf.TokenType.USER_DEFINED for mark in ADDED}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([kinds.get(token, gguf.TokenType.NORMAL) for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in tables["merges"]])
    writer.add_eos_token_id(tokenizer.token_to_id(TURN_END))
    writer.add_pad_token_id(tokenizer.token_to_id(END_OF_TEXT))
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE.read_text(encoding="utf-8"))


def write(path, name, model, tokenizer):
    """Writes the file."""
    writer = gguf.GGUFWriter(str(path), "qwen3")
    writer.add_name(f"reprise sample {name}")
    writer.add_description("Trained from generated sessions by engine/sample/train of Reprise.")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    add_shape(writer, model.config)
    add_tokenizer(writer, tokenizer)
    for weight_name, weight in model.named_parameters():
        data = rounded(weight)
        if data.dtype == torch.bfloat16:
            bits = data.view(torch.uint8).numpy()
            writer.add_tensor(gguf_name(weight_name), bits, raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            writer.add_tensor(gguf_name(weight_name), data.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def check_tensors(reader, model):
    """Every weight is in the file, bit for bit, and nothing else."""
    found = {tensor.name: tensor for tensor in reader.tensors}
    wanted = {gguf_name(name): rounded(weight) for name, weight in model.named_parameters()}
    if set(found) != set(wanted):
        raise RuntimeError(f"tensors differ: {sorted(set(found) ^ set(wanted))}")
    for name, weight in wanted.items():
        shape = tuple(reversed(found[name].shape.tolist()))
        bits = np.asarray(found[name].data).view(np.uint8).reshape(-1)
        if shape != tuple(weight.shape) or not np.array_equal(bits, weight.view(torch.uint8).numpy().reshape(-1)):
            raise RuntimeError(f"{name} in the file is not what was trained")


def tokenizer_of(reader, pipeline):
    """A tokenizer from the file's tables, with the steps around BPE of `pipeline`."""
    def strings(key):
        return reader.get_field(key).contents()

    tokens, kinds = strings("tokenizer.ggml.tokens"), strings("tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ")) for merge in strings("tokenizer.ggml.merges")]
    rebuilt = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    rebuilt.normalizer, rebuilt.pre_tokenizer = pipeline.normalizer, pipeline.pre_tokenizer
    for token, kind in zip(tokens, kinds):
        if kind == gguf.TokenType.CONTROL:
            rebuilt.add_special_tokens([AddedToken(token, special=True, normalized=False)])
        elif kind == gguf.TokenType.USER_DEFINED:
            rebuilt.add_tokens([AddedToken(token, special=False, normalized=False)])
    return rebuilt


def check_tokenizer(reader, tokenizer, texts):
    """The file's tables cut the texts as the tokenizer does that the model was trained with."""
    rebuilt = tokenizer_of(reader, tokenizer)
    for text in texts:
        if rebuilt.encode(text, add_special_tokens=False).ids != tokenizer.encode(text, add_special_tokens=False).ids:
            raise RuntimeError("the file's tokenizer cuts a text in another way than the trained one")


def check_logits(path, model, ids, binary):
    """The engine's logits on the file against PyTorch's on the trained weights; returns NMSE and agreement."""
    command = [str(binary), "logits", "--model", str(path), "--all", "--tokens", ",".join(map(str, ids))]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    theirs = torch.tensor(json.loads(output)["logits"])
    with torch.inference_mode():
        ours = model(torch.tensor([ids]))[0]
    nmse = float(((theirs - ours) ** 2).mean() / (ours**2).mean())
    agreement = float((theirs.argmax(-1) == ours.argmax(-1)).float().mean())
    if nmse > MAX_NMSE:
        raise RuntimeError(f"the engine's logits differ from PyTorch's: NMSE {nmse:.2e}, at most {MAX_NMSE:.0e}")
    return nmse, agreement


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=("target", "drafter"))
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--binary", type=Path, default=default_binary())
    arguments = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(arguments.tokenizer))
    model = load(arguments.checkpoint)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(rounded(weight).float())
    write(arguments.out, arguments.name, model, tokenizer)
    reader = gguf.GGUFReader(str(arguments.out))
    texts = [row["text"] for row in Corpus(arguments.binary).rows(4, 4_000, HELD_OUT)]
    check_tensors(reader, model)
    check_tokenizer(reader, tokenizer, texts)
    ids = tokenizer.encode(texts[0], add_special_tokens=False).ids[:CHECKED_TOKENS]
    nmse, agreement = check_logits(arguments.out, model, ids, arguments.binary)
    size = arguments.out.stat().st_size
    facts = f"{n_parameters(model)} parameters, {size} bytes; engine against PyTorch over {len(ids)} tokens"
    print(f"{arguments.out.name}: {facts}: NMSE {nmse:.1e}, same likeliest token {agreement:.4f}", file=sys.stderr)


if __name__ == "__main__":
    main()
