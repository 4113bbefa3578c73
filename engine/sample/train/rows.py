"""From text with marked spans to arrays: tokens, the positions that the loss is taken at, the spans that heads look at.

A row of the corpus says in characters what the model writes, where each fact stands and what is copied from where. Here
that becomes token positions. Knows no model.
"""

import re
from dataclasses import dataclass

import numpy as np

from supervision import READ, VALUE_FIRST, VALUE_LATER, WRITTEN
from tokenizer import END_OF_TEXT

CHUNK = 32
# A tool output in the chat template, its last line end included, and a line of one.
OUTPUT = re.compile(r"<tool_response>\n(.*?\n)</tool_response>", re.DOTALL)
LINE = re.compile(r".*\n")
# Lines next to each other that are kept or dropped together, on average.
LINES_PER_RUN = 4
# Share of the rows that are too long which lose lines instead of chunks.
BY_LINES_SHARE = 0.5
# The engine scores a tool output by the last tokens of the birth query.
SCORED_QUERIES = 8
# Most of a row's length that text fills, on average, where its length can be chosen: sizes scatter.
FILL = 0.93
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
        spans = {"gather": at // 6, "ask": at // 4, "copy": at // 4, "tail": at // 6, "find": at // 16, "others": at // 6}
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


def without_chunks(tokens, row, length, markup, rng):
    """Drops chunks of tool outputs, as compression by chunks does, until `length` tokens are left or all that may go
    is gone; facts stay. A target that has seen outputs with holes answers from compressed prompts too.
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


def without_lines(row, share, rng):
    """A row that keeps about `share` of the lines of its tool outputs, and every fact, with the engine's markers in the
    place of the others, as compression by lines leaves them."""
    text, facts = row["text"], [needle["fact"] for needle in row["needles"]]
    parts, cuts, copied = [], [], 0
    for output in OUTPUT.finditer(text):
        gone, n_gone, kept = output.start(1), 0, rng.random() < share
        for line in LINE.finditer(text, *output.span(1)):
            if rng.random() < 1 / LINES_PER_RUN:
                kept = rng.random() < share
            holds_fact = any(line.start() <= fact[1] and fact[0] < line.end() for fact in facts)
            if not kept and not holds_fact:
                n_gone += 1
                continue
            if n_gone:
                cuts.append((gone, line.start(), marker(n_gone)))
            gone, n_gone = line.end(), 0
        if n_gone:
            cuts.append((gone, output.end(1), marker(n_gone)))
    for start, end, mark in cuts:
        parts += [text[copied:start], mark]
        copied = end
    return moved(row, "".join([*parts, text[copied:]]), cuts)


def marker(n_lines):
    """What the engine writes in the place of so many lines."""
    return f"[... {n_lines} line{'' if n_lines == 1 else 's'} elided ...]\n"


def moved(row, text, cuts):
    """The row with another text, its places moved by what was cut before them; `cuts` are (start, end, mark)."""
    # What stands in a cut can only be the tail, which begins with its last line break: it goes to that of the mark.
    starts = np.array([start for start, _, _ in cuts], dtype=np.int64)
    shifts = np.concatenate([[0], np.cumsum([len(mark) - (end - start) for start, end, mark in cuts])])

    def shifted(value):
        if isinstance(value, dict):
            return {name: shifted(item) for name, item in value.items()}
        if isinstance(value, list):
            is_span = len(value) == 2 and all(isinstance(item, int) for item in value)
            return [at + int(shifts[np.searchsorted(starts, at, side="right")]) for at in value] if is_span else [
                shifted(item) for item in value
            ]
        return value

    return {name: text if name == "text" else shifted(value) for name, value in row.items()}


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
    spans = {"gather": [], "ask": [], "copy": [], "tail": [], "find": [], "others": []}
    for needle in row["needles"]:
        ask, key, fact = (tokens.within(needle[name]) for name in ("ask", "key", "fact"))
        answer = tokens.within(needle["answer"])[0]
        tail = tokens.within(needle["tail"])[0]
        if form == "scoring":
            tail = min(tail, answer - SCORED_QUERIES)
            others = [tokens.within(other) for other in needle["others"]]
            spans["others"] += [(at, *other) for at in range(tail, answer) for other in others]
        spans["gather"] += [(at, *key) for at in range(key[1], fact[1])]
        spans["tail"] += [(at, *fact) for at in range(tail, answer)]
        spans["ask"] += [(at, *ask) for at in range(tail, answer)]
        for copy in needle["copies"]:
            pairs = copies(tokens, copy)
            spans["find"] += [(at, source, source + 1) for at, source in pairs[:1]]
            spans["copy"] += [(at, source, source + 1) for at, source in pairs[1:]]
            # While a value is written, whose it is matters to the end: other lines go on with the same token.
            if needle["fact"][0] <= copy["source"][0] < needle["fact"][1]:
                spans["ask"] += [(at, *ask) for at, _ in pairs]
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
        tokens = self._tokens(row)
        most = self.capacity.length + 1
        if len(tokens) > most and form != "scoring":
            if rng.random() < BY_LINES_SHARE:
                row = without_lines(row, FILL * most / len(tokens), rng)
                tokens = self._tokens(row)
            without_chunks(tokens, row, most, self.response, rng)
        if len(tokens) > most:
            return None
        arrays = self._targets(tokens, row, rng)
        for name, spans in spans_of(tokens, row, form).items():
            arrays[name] = self._spans(name, spans, rng)
        return arrays

    def _tokens(self, row):
        return Tokens(self.tokenizer.encode(row["text"], add_special_tokens=False))

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
