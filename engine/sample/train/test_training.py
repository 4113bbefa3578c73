"""Tests of what a training would not notice by itself: wrong places, and two computations that must agree.

    python -m unittest discover engine/sample/train
"""

import unittest

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from evaluate import decode_greedily, is_valid
from model import Config, Qwen3
from rows import RowBuilder, Tokens, copies, spans_of, weights_of, without_chunks, without_lines
from supervision import N_PREVIOUS, attention_loss, links, next_token_loss, training_pass
from tokenizer import ADDED, SPECIAL

SMALL = Config(vocab=300, width=32, layers=4, heads=4, kv_heads=2, head_dim=8, ffn=48)


def byte_tokenizer():
    """A token per byte, and the markup."""
    letters = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(letters, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(list(SPECIAL + ADDED))
    return tokenizer


def sample_row(n_before, n_after):
    """A session of one request in the form of the corpus, with filler lines around its fact."""
    ask = "<|im_start|>user\nOpen `red_gate`.<|im_end|>\n<|im_start|>assistant\n"
    explore = '<tool_call>\n{"name": "Bash"}\n</tool_call><|im_end|>'
    fact = "red_gate: src/a.rs"
    filler = "blue_door: src/bb.rs\n"
    before = f"{ask}{explore}\n<|im_start|>user\n<tool_response>\n{filler * n_before}"
    context = f"{before}{fact}\n{filler * n_after}".rstrip("\n")
    tail = "\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    answer = '<tool_call>\n{"path": "src/a.rs"}\n</tool_call><|im_end|>'
    text = context + tail + answer
    value = len(before) + fact.index("src")
    use = len(context + tail) + answer.index("src")
    needle = {
        "kind": "symbol",
        "ask": [ask.index("red"), ask.index("`.")],
        "key": [len(before), len(before) + len("red_gate")],
        "fact": [len(before), len(before) + len(fact)],
        "others": [[len(before) + len(fact) + 1, len(before) + len(fact) + len(filler)]] if n_after else [],
        "tail": [len(context), len(context + tail)],
        "answer": [len(context + tail), len(text)],
        "copies": [{"source": [value, value + 8], "use": [use, use + 8], "in_call": True}],
    }
    turns = [[len(ask), len(ask + explore)], needle["answer"]]
    return {"text": text, "turns": turns, "needles": [needle]}


def marked_texts(row):
    """The text at every place that a row names."""
    places = list(row["turns"])
    for needle in row["needles"]:
        places += [needle[name] for name in ("ask", "key", "fact", "tail", "answer")]
        places += [copy[end] for copy in needle["copies"] for end in ("source", "use")]
    return [row["text"][start:end] for start, end in places]


class Rows(unittest.TestCase):
    def setUp(self):
        self.tokenizer = byte_tokenizer()
        self.rng = np.random.default_rng(0)

    def tokens(self, row):
        return Tokens(self.tokenizer.encode(row["text"], add_special_tokens=False))

    def test_eliding_lines_moves_every_place_with_its_text(self):
        for seed in range(50):
            row = sample_row(seed % 7, seed % 5)
            shorter = without_lines(row, 0.3, np.random.default_rng(seed))
            self.assertEqual(marked_texts(row), marked_texts(shorter))
        self.assertIn("lines elided ...]\n", without_lines(sample_row(9, 9), 0.0, self.rng)["text"])

    def test_eliding_chunks_keeps_facts_and_stops_at_the_length(self):
        row = sample_row(20, 20)
        markup = [self.tokenizer.token_to_id(mark) for mark in ("<tool_response>", "</tool_response>")]
        tokens = self.tokens(row)
        without_chunks(tokens, row, len(tokens) - 100, markup, self.rng)
        self.assertEqual(len(tokens), len(self.tokens(row)) - 128)
        first, after = tokens.within(row["needles"][0]["fact"])
        self.assertEqual(self.tokenizer.decode(tokens.ids[first:after].tolist()), "red_gate: src/a.rs")

    def test_a_copied_token_looks_at_its_source(self):
        row = sample_row(3, 2)
        tokens = self.tokens(row)
        pairs = copies(tokens, row["needles"][0]["copies"][0])
        # The last pair looks at what follows the value.
        self.assertEqual([int(tokens.ids[source]) for _, source in pairs[:-1]],
                         [int(tokens.ids[at + 1]) for at, _ in pairs[:-1]])
        self.assertEqual(len(pairs), len("src/a.rs") + 1)
        self.assertEqual(row["text"][tokens.starts[pairs[-1][1]]], "\n")

    def test_spans_look_back_and_at_what_they_are_named_for(self):
        row = sample_row(3, 2)
        tokens = self.tokens(row)
        spans = spans_of(tokens, row, "session")
        wanted = {"gather": "red_gate", "ask": "red_gate", "tail": "red_gate: src/a.rs", "find": "s"}
        for name, text in wanted.items():
            for at, first, after in spans[name]:
                self.assertLess(first, at)
                self.assertEqual(row["text"][tokens.starts[first] : tokens.ends[after - 1]], text)

    def test_where_an_output_is_scored_the_last_tokens_look_at_other_facts_too(self):
        row = sample_row(3, 2)
        tokens = self.tokens(row)
        self.assertEqual(spans_of(tokens, row, "session")["others"], [])
        spans = spans_of(tokens, row, "scoring")
        self.assertEqual({at for at, *_ in spans["others"]}, {at for at, *_ in spans["tail"]})
        for _, first, after in spans["others"]:
            self.assertEqual(row["text"][tokens.starts[first] : tokens.ends[after - 1]], "blue_door: src/bb.rs")

    def test_the_loss_is_taken_on_what_the_model_writes(self):
        row = sample_row(3, 2)
        tokens = self.tokens(row)
        weight, _ = weights_of(tokens, row)
        written = "".join(row["text"][tokens.starts[at] : tokens.ends[at]] for at in np.flatnonzero(weight))
        self.assertEqual(written, "".join(row["text"][start:end] for start, end in row["turns"]))

    def test_a_row_that_does_not_fit_is_made_to_fit(self):
        arrays = RowBuilder(self.tokenizer, 384).build(sample_row(30, 30), "session", self.rng)
        self.assertEqual(len(arrays["tokens"]), 385)
        self.assertTrue((arrays["tail"][:, 1] >= 0).any())


class Computations(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.model = Qwen3(SMALL).eval()

    def batch(self, n_rows, n_tokens, n_at):
        tokens = torch.randint(SMALL.vocab, (n_rows, n_tokens + 1))
        batch = {
            "tokens": tokens,
            "positions": torch.arange(n_tokens).repeat(n_rows, 1),
            "at": torch.randint(n_tokens, (n_rows, n_at)),
            "weight": torch.rand(n_rows, n_at),
            "kind": torch.zeros(n_rows, n_at, dtype=torch.long),
            "previous": torch.randint(3, n_tokens, (n_rows, N_PREVIOUS)),
        }
        return batch | {link.spans: torch.tensor([[[9, 2, 5]]] * n_rows) for link in links(SMALL)}

    def test_the_training_pass_computes_the_loss_of_the_whole_model(self):
        batch = self.batch(3, 20, 7)
        loss, *_ = training_pass(self.model, batch)
        hidden = self.model.hidden(batch["tokens"][:, :-1])
        at = batch["at"][..., None].expand(-1, -1, SMALL.width)
        expected, _ = next_token_loss(self.model, hidden.gather(1, at), batch)
        torch.testing.assert_close(loss, expected)

    def test_a_head_that_looks_at_the_span_has_no_loss(self):
        keys = 40 * torch.eye(6)[None]
        spans = torch.tensor([[[5, 2, 3], [5, -1, -1]]])
        loss, mass = attention_loss(keys[:, [0, 1, 2, 3, 4, 2]], keys, spans, False)
        self.assertAlmostEqual(float(loss), 0.0, places=4)
        self.assertAlmostEqual(float(mass), 1.0, places=4)
        loss, mass = attention_loss(keys, keys, spans, False)
        self.assertGreater(float(loss), 10.0)

    def test_an_even_look_has_no_loss_and_an_uneven_one_has(self):
        keys = torch.zeros(1, 6, 4)
        spans = torch.tensor([[[3, 0, 4]]])
        loss, _ = attention_loss(keys, keys, spans, True)
        self.assertAlmostEqual(float(loss), 0.0, places=5)
        keys[0, 1] = 3.0
        loss, _ = attention_loss(keys + 1.0, keys, spans, True)
        self.assertGreater(float(loss), 0.5)

    def test_decoding_with_kept_keys_is_decoding_without(self):
        tokens = [5, 17, 200, 3]
        with torch.inference_mode():
            written = decode_greedily(self.model, tokens, end=-1)[:12]
            for token in written:
                self.assertEqual(token, int(self.model(torch.tensor([tokens]))[0, -1].argmax()))
                tokens.append(token)

    def test_only_strict_calls_are_valid(self):
        call = '<tool_call>\n{"name": "Read", "arguments": {"file_path": "a"}}\n</tool_call>'
        for text in (f"{call}<|im_end|>", f"{call}\n{call}<|im_end|>"):
            self.assertTrue(is_valid(text), text)
        for text in (call, f"Ok. {call}<|im_end|>", f"{call} {call}<|im_end|>", "<|im_end|>",
                     call.replace('"a"}', '"a"') + "<|im_end|>", call.replace("arguments", "input") + "<|im_end|>"):
            self.assertFalse(is_valid(text), text)


if __name__ == "__main__":
    unittest.main()
