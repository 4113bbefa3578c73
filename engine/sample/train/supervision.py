"""The training pass: next-token loss at chosen positions, and attention losses that show a few heads where to look.

Finding a fact takes a chain of attention that random weights are slow to stumble on: a value's token has to know the key
of its line, the question's key has to reach the place where the answer is written, and the one has to find the other.
So one head per link is told where to look: a loss of -log of its attention mass on the right keys. What the head carries
over and what is done with it is left to the next-token loss. No other head is told anything.

    block 0           previous tokens (1, 2 and 3 back), so that a token knows what stands before it
    block 1  gather   a fact's tokens look at the fact's key
    block 1  ask      the places that need a fact look at the key in the user's request (the same head)
    block 2  copy     while a value is written: the next token of its source
    block 2  tail     between the context and the answer: the fact, evenly; the signal that compression reads
    block 2  find     before a value is written: its first token in the fact
    block 2  others   where a drafter scores an output: the other facts of its form, which nobody has asked for yet
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from model import rope_table

N_PREVIOUS = 32
PREVIOUS_OFFSETS = (1, 2, 3)
# What a supervised head must not see: finite, so that a row without any supervision gives no NaN.
HIDDEN = -1e30


@dataclass(frozen=True)
class Link:
    """One supervised head. `spans` names the batch array (batch, n, 3) of query position, first key, key after the last."""

    name: str
    block: int
    head: int
    spans: str
    evenly: bool
    weight: float


def links(config):
    """The supervised heads of a model. `gather` and `ask` are one head, so that a key leaves the same mark on its value
    and on the place that asks for it; `tail` and `find` share the keys that compare these marks.
    """
    other_kv = config.group
    return (
        Link("gather", 1, 0, "gather", True, 0.5),
        Link("ask", 1, 0, "ask", True, 0.5),
        Link("copy", 2, 0, "copy", False, 1.0),
        Link("tail", 2, other_kv, "tail", True, 1.0),
        Link("find", 2, other_kv + 1, "find", False, 1.0),
        Link("others", 2, 1, "others", True, 0.5),
    )


@torch.no_grad()
def initialise_links(model):
    """Begins the comparing heads with queries made as keys are made: like finds like from the start."""
    config = model.config
    for link in links(config):
        if link.name in ("tail", "find"):
            block = model.blocks[link.block]
            rows = slice(link.head * config.head_dim, (link.head + 1) * config.head_dim)
            kv_head = link.head // config.group
            block.q.weight[rows] = block.k.weight[kv_head * config.head_dim : (kv_head + 1) * config.head_dim]


def attention_loss(queries, keys, spans, evenly):
    """Mean of -log(attention mass on the span) over the queries in use, and the mean mass.

    queries and keys are (batch, n_tokens, head_dim) of one head; a span whose first key is negative is not in use.
    With `evenly` the loss is the cross-entropy to a uniform distribution over the span: whole facts are to be seen,
    not one token of each.
    """
    at, first, after = spans.unbind(-1)
    rows = torch.gather(queries, 1, at[..., None].expand(*at.shape, queries.shape[-1]))
    scores = (rows @ keys.transpose(-1, -2)).float() / math.sqrt(queries.shape[-1])
    key_at = torch.arange(keys.shape[1], device=keys.device)
    scores = scores.masked_fill(key_at > at[..., None], HIDDEN)
    outside = (key_at < first[..., None]) | (key_at >= after[..., None])
    everything = torch.logsumexp(scores, -1)
    on_span = torch.logsumexp(scores.masked_fill(outside, HIDDEN), -1)
    mass = torch.exp((on_span - everything).detach())
    if evenly:
        n_keys = (after - first).clamp(min=1).float()
        on_span = scores.masked_fill(outside, 0.0).sum(-1) / n_keys + n_keys.log()
    used = (first >= 0).float()
    n_used = used.sum().clamp(min=1)
    return ((everything - on_span) * used).sum() / n_used, (mass * used).sum() / n_used


def previous_token_loss(queries, keys, config, at):
    """Loss and mass of the heads of block 0 that look one, two and three tokens back from the positions `at`."""
    losses, masses = [], []
    for head, offset in enumerate(PREVIOUS_OFFSETS):
        back = (at - offset).clamp(min=0)
        spans = torch.stack([at, back, back + 1], -1)
        loss, mass = attention_loss(queries[:, head], keys[:, head // config.group], spans, False)
        losses.append(loss)
        masses.append(mass)
    return torch.stack(losses).sum(), torch.stack(masses).mean()


def training_pass(model, batch):
    """Losses of a batch and what to log of it.

    The batch holds `tokens` (batch, n_tokens + 1), `positions` (batch, n_tokens), `at` (batch, n) positions whose next
    token is predicted, `weight` and `kind` of these, the spans of `links`, and `previous`, random positions.
    Returns the weighted next-token loss, the previous-token loss, the loss of the links, and a vector of
    [mass of previous, mass per link, accuracy per kind].
    """
    config = model.config
    rope = rope_table(config, batch["positions"])
    tokens = batch["tokens"]
    x = model.embedding(tokens[:, :-1])
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.bfloat16)
    masses, link_losses = [], []
    for index, block in enumerate(model.blocks[:-1]):
        queries, (keys, values) = block.queries(x, rope), block.keys_values(x, rope)
        if index == 0:
            previous, mass = previous_token_loss(queries, keys, config, batch["previous"])
            masses.append(mass)
        for link in links(config):
            if link.block == index:
                head_keys = keys[:, link.head // config.group]
                loss, mass = attention_loss(queries[:, link.head], head_keys, batch[link.spans], link.evenly)
                link_losses.append(link.weight * loss)
                masses.append(mass)
        x = block.feed_forward(block.attend(x, queries, keys, values))
    chosen = last_block(model.blocks[-1], x, rope, batch["at"])
    loss, accuracies = next_token_loss(model, chosen, batch)
    return loss, previous, torch.stack(link_losses).sum(), torch.stack(masses + accuracies).detach()


def last_block(block, x, rope, at):
    """The last block at the positions `at` alone: nothing reads its other outputs, and they cost a fifth of a pass."""

    def take(sequence):
        return torch.gather(sequence, 1, at[..., None].expand(*at.shape, sequence.shape[-1]))

    chosen = take(x)
    keys, values = block.keys_values(x, rope)
    queries = block.queries(chosen, tuple(take(table) for table in rope))
    key_at = torch.arange(x.shape[1], device=x.device)
    visible = (key_at <= at[..., None])[:, None]
    return block.feed_forward(block.attend(chosen, queries, keys, values, visible))


# Kinds of predicted tokens, for the log: what the model writes but does not copy, first and later tokens of copies,
# and text that it only reads.
WRITTEN, VALUE_FIRST, VALUE_LATER, READ = range(4)


def next_token_loss(model, hidden, batch):
    """Weighted cross-entropy of what the last block gave at `at`, and the accuracy per kind of token."""
    logits = model.logits(hidden).float()
    targets = torch.gather(batch["tokens"], 1, batch["at"] + 1)
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)
    weight = batch["weight"]
    right = (logits.argmax(-1) == targets).float()
    accuracies = []
    for kind in (WRITTEN, VALUE_FIRST, VALUE_LATER, READ):
        chosen = (batch["kind"] == kind).float() * (weight > 0)
        accuracies.append((right * chosen).sum() / chosen.sum().clamp(min=1))
    return (losses * weight).sum() / weight.sum().clamp(min=1e-6), accuracies
