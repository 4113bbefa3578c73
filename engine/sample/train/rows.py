"""From text with marked spans to arrays: tokens, the positions that the loss is taken at, the spans that heads look at.

A row of the corpus says in characters what the model writes, where each fact stands and what is copied from where. Here
that becomes token positions. Knows no model.
"""

from dataclasses import dataclass

import numpy as np

from supervision import READ, VALUE_FIRST, VALUE_LATER, WRITTEN
from tokenizer import END_OF_TEXT

CHUNK = 32
# The engine scores a tool output by the last tokens of the birth query.
SCORED_QUERIES = 8
# How much the loss of a token counts: what is copied into a call decides whether the call is right.
WEIGHT_WRITTEN, WEIGHT_COPY, WEIGHT_FIRST, WEIGHT_SENTENCE, WEIGHT_READ = 1.0, 3.0, 6.0, 1.5, 0.1


@dataclass(frozen=True)
class Capacity:
    """Places of a row of `length` tokens: predicted positions, and spans per link."""

    length: int
    at: int
    spans: dict

    @staticmethod
    def of(length):
        """As many as most rows need: a session's calls grow more slowly than its outputs."""
        at = min(length // 3, 96 + length // 8, 640)
        spans = {"gather": at // 6, "ask": at // 6, "copy": at // 4, "tail": at // 6, "find": at // 16}
        return Capacity(length, at, spans)


class Tokens:
    """A tokenised row: ids and where each token stands in the text."""

    def __init__(self, encoding):
        offsets = np.asarray(encoding.offsets, dtype=np.int64).reshape(-1, 2)
        self.ids = np.asarray(encoding.ids, dtype=np.int64)
        self.starts, self.ends = offsets[:, 0], offsets[:, 1]

    def __len__(self):
        return len(self.ids)

    def within(self, span):
        """First token that overlaps a span of characters, and the one after the last."""
        first = int(np.searchsorted(self.ends, span[0], side="right"))
        return first, int(np.searchsorted(self.starts, span[1], side="left"))

    def only(self, kept):
        """Drops the tokens that are not `kept`; spans of characters stay valid."""
        self.ids, self.starts, self.ends = self.ids[kept], self.starts[kept], self.ends[kept]


def elided(tokens, row, length, markup, rng):
    """Drops chunks of tool outputs, as compression does, until `length` tokens are left; chunks with facts stay.

    Returns whether it fits. A target that has seen outputs with holes answers from compressed prompts too.
    """
    kept = np.ones(len(tokens), dtype=bool)
    for needle in row["needles"]:
        first, after = tokens.within(needle["fact"])
        kept[first:after] = False
    chunks = []
    for start, end in zip(*(np.flatnonzero(tokens.ids == mark) for mark in markup)):
        whole = range(start + 1, end - CHUNK + 1, CHUNK)
        chunks += [first for first in whole if kept[first : first + CHUNK].all()]
    kept[:] = True
    for first in rng.permutation(chunks):
        if kept.sum() <= length:
            break
        kept[first : first + CHUNK] = False
    tokens.only(kept)
    return len(tokens) <= length


def copies(tokens, copy):
    """(position before the written token, its source token) for every token of a copy, and one for what follows it.

    Texts meet by where their tokens end: a name may be cut differently behind a quote than behind a space.
    """
    first, after = tokens.within(copy["use"])
    source_first, source_after = tokens.within(copy["source"])
    ends = {int(tokens.ends[at]) - copy["source"][0]: at for at in range(source_first, source_after)}
    pairs = []
    for at in range(first, after):
        source = ends.get(int(tokens.ends[at]) - copy["use"][0])
        if source is not None:
            pairs.append((at - 1, source))
    # What follows the source tells that the value is over.
    if pairs and source_after < first and after < len(tokens):
        pairs.append((after - 1, source_after))
    return pairs


def spans_of(tokens, row, form):
    """The spans of every link of `supervision.links`: name -> list of (query position, first key, key after last)."""
    spans = {"gather": [], "ask": [], "copy": [], "tail": [], "find": []}
    for needle in row["needles"]:
        ask, key, fact = (tokens.within(needle[name]) for name in ("ask", "key", "fact"))
        answer = tokens.within(needle["answer"])[0]
        tail = tokens.within(needle["tail"])[0]
        if form == "scoring":
            tail = min(tail, answer - SCORED_QUERIES)
        spans["gather"] += [(at, *key) for at in range(key[1], fact[1])]
        spans["tail"] += [(at, *fact) for at in range(tail, answer)]
        spans["ask"] += [(at, *ask) for at in range(tail, answer)]
        for copy in needle["copies"]:
            pairs = copies(tokens, copy) if copy["in_call"] else []
            if not pairs:
                continue
            spans["find"].append((pairs[0][0], pairs[0][1], pairs[0][1] + 1))
            spans["copy"] += [(at, source, source + 1) for at, source in pairs[1:]]
            if copy["source"] != needle["ask"] and pairs[0][0] >= answer:
                spans["ask"].append((pairs[0][0], *ask))
    return spans


def weights_of(tokens, row):
    """Weight and kind of every token as a target of the loss."""
    weight = np.zeros(len(tokens), dtype=np.float32)
    kind = np.full(len(tokens), READ, dtype=np.int64)
    for turn in row["turns"]:
        first, after = tokens.within(turn)
        weight[first:after], kind[first:after] = WEIGHT_WRITTEN, WRITTEN
    for needle in row["needles"]:
        for copy in needle["copies"]:
            first, after = tokens.within(copy["use"])
            weight[first:after] = WEIGHT_COPY if copy["in_call"] else WEIGHT_SENTENCE
            if copy["in_call"]:
                weight[first], kind[first], kind[first + 1 : after] = WEIGHT_FIRST, VALUE_FIRST, VALUE_LATER
    return weight, kind


def chosen(weight, n, rng):
    """Positions whose next token is predicted: all that count if they are few enough, and a sample of the rest."""
    counts = np.flatnonzero(weight[1:])
    if len(counts) > n:
        share = weight[1:][counts] / weight[1:][counts].sum()
        return np.sort(rng.choice(counts, n, replace=False, p=share))
    rest = np.flatnonzero(weight[1:] == 0)
    more = rng.choice(rest, min(n - len(counts), len(rest)), replace=False)
    return np.concatenate([counts, more])


class RowBuilder:
    """Builds rows of one length from corpus rows of one form."""

    def __init__(self, tokenizer, length):
        self.tokenizer = tokenizer
        self.capacity = Capacity.of(length)
        self.padding = tokenizer.token_to_id(END_OF_TEXT)
        self.response = [tokenizer.token_to_id(mark) for mark in ("<tool_response>", "</tool_response>")]

    def build(self, row, form, rng):
        """The arrays of a row, or None if it does not fit."""
        tokens = Tokens(self.tokenizer.encode(row["text"], add_special_tokens=False))
        most = self.capacity.length + 1
        if len(tokens) > most and (form == "scoring" or not elided(tokens, row, most, self.response, rng)):
            return None
        arrays = self._targets(tokens, row, rng)
        for name, spans in spans_of(tokens, row, form).items():
            arrays[name] = self._spans(name, spans, rng)
        return arrays

    def _targets(self, tokens, row, rng):
        weight, kind = weights_of(tokens, row)
        at = chosen(weight, self.capacity.at, rng)
        n_used = len(at)
        arrays = {
            "tokens": np.full(self.capacity.length + 1, self.padding, dtype=np.int64),
            "at": np.zeros(self.capacity.at, dtype=np.int64),
            "weight": np.zeros(self.capacity.at, dtype=np.float32),
            "kind": np.full(self.capacity.at, READ, dtype=np.int64),
        }
        arrays["tokens"][: len(tokens)] = tokens.ids
        arrays["at"][:n_used] = at
        arrays["weight"][:n_used] = np.maximum(weight[at + 1], WEIGHT_READ)
        arrays["kind"][:n_used] = kind[at + 1]
        return arrays

    def _spans(self, name, spans, rng):
        room = self.capacity.spans[name]
        array = np.tile(np.array([0, -1, -1], dtype=np.int64), (room, 1))
        # A key is visible to a query at or behind it alone.
        spans = np.array([span for span in spans if 0 <= span[1] < span[2] <= span[0] + 1], dtype=np.int64)
        if len(spans) > room:
            spans = spans[rng.choice(len(spans), room, replace=False)]
        if len(spans):
            array[: len(spans)] = spans
        return array
