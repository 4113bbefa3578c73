"""Training text: rows of `reprise synth --corpus`, one JSON object per line. Knows no tokens.

Seeds below 2^32 are for training, what lies above is held out; the generator's module says the same.
"""

import json
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
HELD_OUT = 1 << 32
FORMS = ("session", "single", "scoring")


def default_binary():
    """The release build of the generator."""
    return REPOSITORY / "target" / "release" / "reprise"


class Corpus:
    """The generator behind a function call."""

    def __init__(self, binary):
        self.binary = str(binary)

    def rows(self, n_rows, chars, seed, form="session"):
        """`n_rows` rows of about `chars` characters, of the seeds from `seed` on."""
        if form not in FORMS:
            raise ValueError(f"no form {form!r}; there are {', '.join(FORMS)}")
        command = [self.binary, "synth", "--corpus", str(n_rows), "--chars", str(chars), "--form", form]
        done = subprocess.run([*command, "--seed", str(seed)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} gave {done.returncode}: {done.stderr.strip()}")
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        if len(rows) != n_rows:
            raise RuntimeError(f"{' '.join(command)} gave {len(rows)} rows")
        return rows
