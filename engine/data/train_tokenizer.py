"""Trains the tokenizer of the synthetic models: byte-level BPE with Qwen2's splitting, on this repository's own text.

Run from the root of a checkout:   python3 engine/data/train_tokenizer.py
Needs the PyPI package `tokenizers` (0.23.3 made the committed file).

The corpus is every tracked text file of the repository: sources, documents and the bundled sessions, whose tool results
are decoded so that the vocabulary sees them as a prompt holds them. Same files, same package: same tokenizer.
"""

import json
import pathlib
import subprocess

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

ROOT = pathlib.Path(__file__).resolve().parents[2]
ENTRIES = 4096
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
ADDED = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"]
# The splitting pattern that Qwen2 publishes in its tokenizer.json.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
SUFFIXES = {".rs", ".md", ".py", ".toml", ".yml", ".jinja", ".jsonl"}


def strings(value):
    """Every string inside a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)


def corpus():
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\n")
    for name in sorted(names):
        path = ROOT / name
        if path.suffix not in SUFFIXES or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == ".jsonl":
            for line in text.splitlines():
                try:
                    yield from strings(json.loads(line).get("message"))
                except (json.JSONDecodeError, AttributeError):
                    continue
            continue
        yield text
        if path.suffix == ".rs":
            # As the Read tool prints it.
            yield "\n".join(f"{i + 1:6}\t{line}" for i, line in enumerate(text.splitlines()))


def main():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=ENTRIES - len(SPECIAL) - len(ADDED),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # Fixtures hold lone surrogates, which have no UTF-8 form, and our own markers must stay whole tokens.
    texts = [text.encode("utf-8", "ignore").decode().replace("<|im_", "") for text in corpus()]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in ADDED])
    out = ROOT / "engine" / "data" / "tokenizer.json"
    tokenizer.save(str(out))
    characters = sum(map(len, texts))
    tokens = sum(len(tokenizer.encode(text).ids) for text in texts)
    print(f"{tokenizer.get_vocab_size()} entries, {characters / tokens:.2f} characters a token over {characters} characters")


if __name__ == "__main__":
    main()
