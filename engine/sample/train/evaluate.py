"""What a trained model can do, on seeds that were never trained on.

    evaluate.py target --tokenizer tokenizer.json --checkpoint target.pt --lengths 512 2048 --rows 16
    evaluate.py drafter --tokenizer tokenizer.json --checkpoint drafter.pt

The target: whole sessions are read once, and every turn in them is right if each of its tokens is the likeliest one
behind the recorded text before it; that is when greedy decoding writes exactly this turn. Tool calls that are not right
are decoded and tried for validity. The drafter: the share of facts whose value chunks all rank in the top tenth of the
chunks of the tool output, by the engine's score. One JSON line per length. `reprise bench-sample` measures the exported
pair in the engine; this is for looking at a training under way.
"""

import argparse
import json
import math
import os
import re
import sys
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

from batches import tokens_per_char  # noqa: E402
from corpus import HELD_OUT, Corpus, default_binary  # noqa: E402
from model import Config, Qwen3, rope_table  # noqa: E402
from rows import CHUNK, SCORED_QUERIES, Tokens  # noqa: E402
from tokenizer import TURN_END  # noqa: E402

TOOL_CALL = re.compile(r"<tool_call>\n(.*)\n</tool_call>", re.DOTALL)
SMOOTHING = 13
KEPT_SHARE = 0.1
ANSWER_TOKENS_MAX = 160


def load(checkpoint):
    """A model from a training checkpoint."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model = Qwen3(Config(**state["config"]))
    model.load_state_dict(state["weights"])
    return model.eval()


def held_out(corpus, tokenizer, length, n_rows, form):
    """Held-out rows of about `length` tokens; seeds differ from length to length."""
    chars = int(length / tokens_per_char(corpus, tokenizer, length, form))
    return corpus.rows(n_rows, chars, HELD_OUT + length * 1_000_000, form)


def decode_greedily(model, tokens, end):
    """The likeliest continuation of the tokens up to and including `end`."""
    written = []
    caches = [None] * model.config.layers
    position, fed = 0, tokens
    while len(written) < ANSWER_TOKENS_MAX and (not written or written[-1] != end):
        positions = torch.arange(position, position + len(fed))
        rope = rope_table(model.config, positions)
        x = model.embedding(torch.tensor([fed]))
        for index, block in enumerate(model.blocks):
            keys, values = block.keys_values(x, rope)
            if caches[index] is not None:
                keys, values = (torch.cat(pair, 2) for pair in zip(caches[index], (keys, values)))
            caches[index] = keys, values
            # One new token sees everything; the prompt sees itself causally.
            visible = None if len(fed) > 1 else torch.ones(1, keys.shape[2], dtype=torch.bool)
            x = block.feed_forward(block.attend(x, block.queries(x, rope), keys, values, visible))
        position += len(fed)
        fed = [int(model.logits(x[:, -1]).argmax())]
        written += fed
    return written


def is_valid(text):
    """Whether a turn that should call a tool does so strictly: nothing but calls, each a JSON object of two members."""
    if not text.endswith(TURN_END):
        return False
    calls = text[: -len(TURN_END)].split("\n<tool_call>")
    for index, call in enumerate(calls):
        match = TOOL_CALL.fullmatch(call if index == 0 else "<tool_call>" + call)
        try:
            value = json.loads(match.group(1)) if match else None
        except json.JSONDecodeError:
            value = None
        well_formed = isinstance(value, dict) and set(value) == {"name", "arguments"}
        if not well_formed or not isinstance(value["arguments"], dict):
            return False
    return True


def kind_of(row, turn):
    """What a turn is there for."""
    for needle in row["needles"]:
        if needle["answer"] == turn:
            shown_before = not row["text"][slice(*needle["tail"])].lstrip("\n").startswith("</tool_response>")
            return "acting_delayed" if shown_before else "acting"
    return "exploring" if "<tool_call>" in row["text"][slice(*turn)] else "closing"


def judge_session(model, tokenizer, row):
    """Counts over the turns of a session: written per kind, right per kind, calls that are valid."""
    tokens = Tokens(tokenizer.encode(row["text"], add_special_tokens=False))
    ids = torch.from_numpy(tokens.ids)
    likeliest = model.logits(model.hidden(ids[None])[0]).argmax(-1)
    counts, misses = Counter(tokens=len(ids)), []
    for turn in row["turns"]:
        kind = kind_of(row, turn)
        first, after = tokens.within(turn)
        right = bool((likeliest[first - 1 : after - 1] == ids[first:after]).all())
        counts[f"{kind}_n"] += 1
        counts[f"{kind}_right"] += right
        if kind == "closing":
            continue
        counts["calls_n"] += 1
        counts["calls_valid"] += right
        if not right:
            written = decode_greedily(model, ids[:first].tolist(), tokenizer.token_to_id(TURN_END))
            text = tokenizer.decode(written, skip_special_tokens=False)
            counts["calls_valid"] += is_valid(text)
            misses.append((kind, row["text"][slice(*turn)], text))
    return counts, misses


def evaluate_target(model, tokenizer, corpus, length, n_rows):
    """Shares over held-out sessions of one length."""
    total, misses = Counter(), []
    for row in held_out(corpus, tokenizer, length, n_rows, "session"):
        counts, more = judge_session(model, tokenizer, row)
        total += counts
        misses += more
    result = {"length": length, "rows": n_rows, "tokens_mean": total["tokens"] / n_rows}
    for kind in ("acting", "acting_delayed", "exploring", "closing"):
        result[kind] = f"{total[kind + '_right']}/{total[kind + '_n']}"
    result["calls_valid"] = f"{total['calls_valid']}/{total['calls_n']}"
    return result, misses


def scores(model, ids, n_scored):
    """The engine's score of the first `n_scored` tokens: attention of the last queries, the most over all heads."""
    n_queries = SCORED_QUERIES
    rope = rope_table(model.config, torch.arange(len(ids)))
    late = tuple(table[-n_queries:] for table in rope)
    x = model.embedding(ids[None])
    most = torch.zeros(n_queries, n_scored)
    hidden_from = torch.arange(len(ids)) > torch.arange(len(ids) - n_queries, len(ids))[:, None]
    for block in model.blocks:
        keys, values = block.keys_values(x, rope)
        queries = block.queries(x[:, -n_queries:], late)
        weights = queries @ keys.repeat_interleave(model.config.group, 1).mT / math.sqrt(model.config.head_dim)
        weights = weights.float().masked_fill(hidden_from, -math.inf).softmax(-1)
        most = torch.maximum(most, weights[0, :, :, :n_scored].amax(0))
        x = block.feed_forward(block.attend(x, block.queries(x, rope), keys, values))
    smooth = {"kernel_size": SMOOTHING, "stride": 1, "padding": SMOOTHING // 2, "count_include_pad": False}
    return F.avg_pool1d(most.mean(0)[None], **smooth)[0]


def evaluate_drafter(model, tokenizer, corpus, length, n_rows):
    """Share of facts whose value chunks are all in the top tenth, and the mean rank of the worst of them."""
    n_kept, ranks = 0, []
    for row in held_out(corpus, tokenizer, length, n_rows, "scoring"):
        needle = row["needles"][0]
        tokens = Tokens(tokenizer.encode(row["text"], add_special_tokens=False))
        answer = tokens.within(needle["answer"])[0]
        n_output = tokens.within([0, row["text"].index("<|im_start|>")])[1]
        token_scores = scores(model, torch.from_numpy(tokens.ids[:answer]), n_output)
        chunks = torch.stack([chunk.mean() for chunk in token_scores.split(CHUNK)])
        order = chunks.argsort(descending=True).tolist()
        values = [copy["source"] for copy in needle["copies"] if copy["source"][1] <= needle["fact"][1]]
        holding = {at // CHUNK for value in values for at in range(*tokens.within(value))}
        worst = max(order.index(chunk) for chunk in holding)
        n_kept += worst < max(len(holding), math.ceil(KEPT_SHARE * len(order)))
        ranks.append(worst + 1)
    return {"length": length, "kept": f"{n_kept}/{n_rows}", "worst_rank_mean": sum(ranks) / n_rows}, []


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=("target", "drafter"))
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--binary", type=Path, default=default_binary())
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 2048, 4096, 8192])
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--misses", action="store_true", help="print what should have been written and what was")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tokenizer = Tokenizer.from_file(str(arguments.tokenizer))
    judge = {"target": evaluate_target, "drafter": evaluate_drafter}[arguments.model]
    model = load(arguments.checkpoint)
    # Matrices meet inputs rounded to BF16, as in the engine.
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        for length in arguments.lengths:
            result, misses = judge(model, tokenizer, Corpus(arguments.binary), length, arguments.rows)
            print(json.dumps(result), flush=True)
            for kind, wanted, written in misses if arguments.misses else ():
                print(f"  {kind}\n    {wanted!r}\n    {written!r}", file=sys.stderr)


if __name__ == "__main__":
    main()
