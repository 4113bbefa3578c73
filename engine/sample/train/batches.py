"""Batches ahead of the trainer: a thread asks the generator for text, builds rows and stacks them. Knows no model.

Everything is drawn from the seed: the same seed gives the same batches in the same order.
"""

import queue
import threading

import numpy as np
import torch

from rows import FILL, RowBuilder
from supervision import N_PREVIOUS

# Positions are stretched by jumps until this one, so that far angles are known before long rows are affordable.
POSITION_MAX = 24_000
# Share of rows whose positions jump, and most jumps of one.
JUMPING_SHARE, JUMPS_MAX = 0.5, 3
# Share of session rows that start out too long and lose chunks of tool output, and how much longer they start.
ELIDED_SHARE, ELIDED_FACTOR = 0.25, (1.5, 5.0)
# Corpus rows that one call of the generator gives.
ROWS_PER_CALL = 64
AHEAD = 4


def tokens_per_char(corpus, tokenizer, length, form):
    """Tokens of a row per character asked for: markup and calls come on top of what is asked for."""
    chars = 3 * length
    texts = [row["text"] for row in corpus.rows(16, chars, 0, form)]
    encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
    return sum(len(encoding.ids) for encoding in encodings) / (len(texts) * chars)


class RowSource:
    """An endless stream of rows of one length and form; `seed` is that of the next corpus row."""

    def __init__(self, corpus, tokenizer, length, form, seed):
        self.corpus, self.form, self.length, self.seed = corpus, form, length, seed
        self.builder = RowBuilder(tokenizer, length)
        self.chars = FILL * length / tokens_per_char(corpus, tokenizer, length, form)
        self.ready = []

    def take(self, n_rows, rng):
        """The next rows."""
        while len(self.ready) < n_rows:
            self._fill(rng)
        rows, self.ready = self.ready[:n_rows], self.ready[n_rows:]
        return rows

    def _fill(self, rng):
        n_rows = max(4, min(ROWS_PER_CALL, 2**19 // self.length))
        factor = rng.uniform(0.8, 1.0)
        if self.form != "scoring" and rng.random() < ELIDED_SHARE:
            # Such calls give fewer rows: the text is longer, and a batch should hold some of each.
            factor, n_rows = rng.uniform(*ELIDED_FACTOR), max(2, n_rows // 4)
        built = (self.builder.build(row, self.form, rng)
                 for row in self.corpus.rows(n_rows, int(self.chars * factor), self.seed, self.form))
        self.ready += [arrays for arrays in built if arrays is not None]
        self.seed += n_rows
        rng.shuffle(self.ready)


def positions(n_rows, length, rng):
    """Positions of a batch: from 0 on, in some rows with jumps, small ones and large ones, at random places."""
    at = np.tile(np.arange(length), (n_rows, 1))
    room = POSITION_MAX - length
    for row in range(n_rows):
        if room > 0 and rng.random() < JUMPING_SHARE:
            places = np.sort(rng.integers(0, length, rng.integers(1, JUMPS_MAX + 1)))
            sizes = rng.dirichlet(np.ones(len(places))) * room ** rng.random()
            for place, size in zip(places, sizes):
                at[row, place:] += int(size)
    return at


def stacked(rows, length, rng):
    """Rows as one batch of tensors."""
    batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    batch["positions"] = positions(len(rows), length, rng)
    batch["previous"] = rng.integers(3, length, (len(rows), N_PREVIOUS))
    return {name: torch.from_numpy(array) for name, array in batch.items()}


class Batches:
    """Batches of one phase: `size` rows of `length` tokens, the forms in equal parts, built by a thread ahead of time."""

    def __init__(self, corpus, tokenizer, forms, length, size, seed):
        sources = [RowSource(corpus, tokenizer, length, form, seed + index * 2**30) for index, form in enumerate(forms)]
        self.queue = queue.Queue(AHEAD)
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._build, args=(sources, length, size, seed), daemon=True)
        self.thread.start()

    def _build(self, sources, length, size, seed):
        rng = np.random.default_rng(seed)
        n_built = 0
        try:
            while not self.stopped.is_set():
                picked = [sources[(n_built + row) % len(sources)] for row in range(size)]
                batch = stacked([source.take(1, rng)[0] for source in picked], length, rng)
                n_built += size
                self._put(batch)
        except Exception as error:  # The trainer must not wait for a thread that died.
            self._put(error)

    def _put(self, item):
        while not self.stopped.is_set():
            try:
                return self.queue.put(item, timeout=1)
            except queue.Full:
                continue

    def next(self):
        """The next batch."""
        item = self.queue.get()
        if isinstance(item, Exception):
            raise item
        return item

    def stop(self):
        """Ends the thread."""
        self.stopped.set()
        self.thread.join()
