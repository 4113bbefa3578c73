"""The pair's tokenizer: byte-level BPE with Qwen2's splitting and Qwen3's special tokens, 4,096 entries in all.

It is trained on generated sessions and on this repository's own sources, so that neither the bundled sessions nor real
ones fall apart into bytes.

    tokenizer.py --out tokenizer.json [--binary target/release/reprise]    trains, and prints characters per token
"""

import argparse
import json
import re
import sys
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from corpus import HELD_OUT, REPOSITORY, Corpus, default_binary

N_ENTRIES = 4096
END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL = (END_OF_TEXT, TURN_START, TURN_END)
ADDED = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
# The splitting of Qwen2, as llama.cpp knows it under the name `qwen2`.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SOURCE_SUFFIXES = (".rs", ".md", ".toml", ".cu", ".cuh")
# Row sizes of the training text in characters, and how many rows of each: short ones are rich in calls, long ones in
# tool output.
CORPUS_ROWS = ((2_000, 600), (24_000, 60))
# A name of two words, as most keys are.
NAME = re.compile(r"\b[a-z]+_[a-z]+\b")
# So many names stand once in upper case.
NAMES_PER_UPPER = 3


def sources():
    """Texts of the repository, in a fixed order; build output and the vendored golden files are not among them."""
    for folder in ("kernels", "engine", "transcripts", "replay", "reports", "docs"):
        for path in sorted((REPOSITORY / folder).rglob("*")):
            if path.suffix in SOURCE_SUFFIXES and path.is_file():
                yield path.read_text(encoding="utf-8")
    for name in ("README.md", "ARCHITECTURE.md", "Cargo.toml"):
        yield (REPOSITORY / name).read_text(encoding="utf-8")


def corpus_texts(corpus, seed):
    """Generated sessions."""
    for chars, n_rows in CORPUS_ROWS:
        for row in corpus.rows(n_rows, chars, seed):
            yield row["text"]
            # One kind of key in eight is in upper case: too rare to be cut into words like the others.
            names = NAME.findall(row["text"])[::NAMES_PER_UPPER]
            yield "\n".join(names).upper()


def without_markup(texts):
    """The stretches between special tokens: markup is not to be learned as text."""
    for text in texts:
        for mark in SPECIAL + ADDED:
            text = text.replace(mark, "\0")
        yield from text.split("\0")


def train(texts):
    """A tokenizer of `N_ENTRIES` entries; the special ones come last, as in Qwen's files."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    by_split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([by_split, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=N_ENTRIES - len(SPECIAL) - len(ADDED),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[],
        show_progress=False,
    )
    tokenizer.train_from_iterator(without_markup(texts), trainer)
    tokenizer.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in SPECIAL])
    tokenizer.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in ADDED])
    if tokenizer.get_vocab_size() != N_ENTRIES:
        raise RuntimeError(f"{tokenizer.get_vocab_size()} entries, wanted {N_ENTRIES}")
    return tokenizer


def strings(value):
    """Every string inside of a JSON value: the texts of a recorded session, without the file's own quoting."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)


def chars_per_token(tokenizer, texts):
    """Characters per token over all texts."""
    n_chars = n_tokens = 0
    for encoding, text in zip(tokenizer.encode_batch(texts, add_special_tokens=False), texts):
        n_chars += len(text)
        n_tokens += len(encoding.ids)
    return n_chars / n_tokens


def report(tokenizer, corpus):
    """Characters per token of what the tokenizer will meet."""
    measured = {"generated, held out": [row["text"] for row in corpus.rows(64, 12_000, HELD_OUT)]}
    measured["sources"] = list(sources())
    for path in sorted((REPOSITORY / "transcripts" / "data").glob("*.jsonl")):
        lines = path.read_text(encoding="utf-8").splitlines()
        measured[path.name] = [text for line in lines for text in strings(json.loads(line).get("message")) if text]
    return {name: round(chars_per_token(tokenizer, texts), 3) for name, texts in measured.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--binary", type=Path, default=default_binary())
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    corpus = Corpus(arguments.binary)
    # BPE counts pairs: the order of the texts does not matter, their amounts do.
    tokenizer = train([*corpus_texts(corpus, arguments.seed), *sources()])
    part = arguments.out.with_suffix(".part")
    tokenizer.save(str(part))
    part.replace(arguments.out)
    for name, value in report(tokenizer, corpus).items():
        print(f"{value:6.3f} characters per token   {name}", file=sys.stderr)


if __name__ == "__main__":
    main()
