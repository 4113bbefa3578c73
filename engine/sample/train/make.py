#!/usr/bin/env python3
"""Makes the bundled pair: tokenizer, target, drafter, and the two GGUF files, each checked against PyTorch.

    make.py [--binary target/release/reprise] [--work target/sample-models] [--out engine/sample]

Each stage is a program of its own beside this one. A stage whose product lies in the work folder is not run again, and a
training goes on from its last checkpoint, so the same command goes on after a stop; remove the folder to start anew.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from corpus import REPOSITORY, default_binary

HERE = Path(__file__).resolve().parent
# Training allocates and frees the same large buffers at every step: given back to the system, each would be mapped and
# cleared again.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 36), "MALLOC_TOP_PAD_": str(1 << 29)}


def run(program, *arguments):
    """Runs a program of this folder and stops with its status if it fails."""
    command = [sys.executable, str(HERE / program), *map(str, arguments)]
    print("+", *command[1:], flush=True)
    status = subprocess.run(command, env=os.environ | KEEP_MEMORY, check=False).returncode
    if status != 0:
        sys.exit(status)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, default=default_binary(), help="the generator and reference engine")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "target" / "sample-models")
    parser.add_argument("--out", type=Path, default=HERE.parent)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    tokenizer = arguments.work / "tokenizer.json"
    shared = ["--tokenizer", tokenizer, "--binary", arguments.binary]
    if not tokenizer.exists():
        run("tokenizer.py", "--out", tokenizer, "--binary", arguments.binary)
    for model in ("target", "drafter"):
        checkpoint = arguments.work / f"{model}.pt"
        run("train.py", model, *shared, "--folder", arguments.work)
        run("evaluate.py", model, *shared, "--checkpoint", checkpoint)
        run("export.py", model, *shared, "--checkpoint", checkpoint, "--out", arguments.out / f"{model}.gguf")


if __name__ == "__main__":
    main()
