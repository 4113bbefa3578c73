"""Trains one model of the pair from generated sessions: a plan of phases, rows growing longer from one to the next.

    train.py target --tokenizer tokenizer.json --folder out
    train.py drafter --tokenizer tokenizer.json --folder out

Runs on the CPU, or on one GPU when there is one. A checkpoint is written every few minutes and after each phase; the
same command goes on from the last one. Every line of <folder>/<model>.jsonl is the mean of the steps since the last.
"""

import argparse
import json
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

# Two threads of a shared machine must not spin while they wait for each other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

from batches import Batches  # noqa: E402
from corpus import Corpus, default_binary  # noqa: E402
from model import Config, Qwen3, n_parameters  # noqa: E402
from optimiser import Optimiser  # noqa: E402
from supervision import initialise_links, links, training_pass  # noqa: E402
from tokenizer import N_ENTRIES  # noqa: E402

PREVIOUS_WEIGHT, LINK_WEIGHT = 0.2, 0.5
WARM_UP_STEPS = 40
# The last part of the training, over which the rate falls, and the least it falls to.
COOL_DOWN, RATE_MIN = 0.6, 0.05
STEPS_PER_LINE = 20
SECONDS_PER_CHECKPOINT = 120


@dataclass(frozen=True)
class Phase:
    """Steps over batches of `rows` rows of `length` tokens."""

    length: int
    rows: int
    steps: int

    @staticmethod
    def parse(text):
        """From `LENGTHxROWSxSTEPS`."""
        return Phase(*map(int, text.split("x")))


@dataclass(frozen=True)
class Recipe:
    """What is trained, on what and for how long."""

    config: Config
    forms: tuple
    plan: tuple
    seed: int


def plan_of(text):
    """Phases apart by spaces."""
    return tuple(map(Phase.parse, text.split()))


TARGET = Recipe(
    Config(vocab=N_ENTRIES, width=256, layers=4, heads=4, kv_heads=2, head_dim=64, ffn=768),
    # One row in three is a session of one request: a fact has to be found behind one long output as well as among many.
    ("session", "session", "single"),
    plan_of(
        "256x24x400 512x12x400 1024x6x300 2048x3x250 4096x2x140 512x12x100 8192x1x80 1024x6x200 2048x3x200 512x12x160 "
        "4096x2x160 16384x1x12 2048x3x120 8192x1x60 1024x6x80 4096x2x100 512x12x60 16384x1x6 2048x3x60 8192x1x20 "
        "4096x2x130 8192x1x70 2048x3x100 16384x1x8 4096x2x100 8192x1x50 512x12x40 4096x2x40"
    ),
    1 << 20,
)
DRAFTER = Recipe(
    Config(vocab=N_ENTRIES, width=192, layers=4, heads=4, kv_heads=2, head_dim=32, ffn=384),
    ("session", "scoring"),
    plan_of("256x24x500 512x12x350 1024x6x200 2048x3x150 4096x2x60 8192x1x40"),
    1 << 25,
)
RECIPES = {"target": TARGET, "drafter": DRAFTER}


def rate_at(step, n_steps):
    """Share of the full learning rate: a short rise, a plateau, a linear fall."""
    left = (n_steps - step) / max(1.0, n_steps * COOL_DOWN)
    return max(RATE_MIN, min((step + 1) / WARM_UP_STEPS, 1.0, left))


def device():
    """One GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Log:
    """The means of what the steps gave, a JSON line now and then."""

    def __init__(self, path, config):
        self.path = path
        self.names = ["loss", "previous_loss", "link_loss", "previous_mass"]
        self.names += [f"{link.name}_mass" for link in links(config)]
        self.names += ["written", "value_first", "value_later", "read"]
        self.values = []

    def add(self, values):
        """Takes the numbers of a step."""
        self.values.append(values.detach().float().cpu())

    def write(self, **facts):
        """Writes the means since the last line."""
        means = torch.stack(self.values).mean(0).tolist()
        self.values = []
        facts.update({name: round(mean, 4) for name, mean in zip(self.names, means)})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(facts) + "\n")
        print(json.dumps(facts), flush=True)


class Trainer:
    """A model on its way through a plan."""

    def __init__(self, name, recipe, tokenizer, corpus, folder):
        self.training_pass = training_pass
        self.recipe, self.tokenizer, self.corpus = recipe, tokenizer, corpus
        self.checkpoint = folder / f"{name}.pt"
        torch.manual_seed(recipe.seed)
        self.device = device()
        self.model = Qwen3(recipe.config).to(self.device)
        initialise_links(self.model)
        self.optimiser = Optimiser(self.model)
        self.log = Log(folder / f"{name}.jsonl", recipe.config)
        self.step = self.tokens_seen = self.phase = self.step_of_phase = 0
        self.started_at = self.saved_at = time.monotonic()
        if self.checkpoint.exists():
            self._restore()

    def _restore(self):
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["weights"])
        self.optimiser.restore(state["optimiser"])
        self.step, self.tokens_seen, self.phase, self.step_of_phase = state["progress"]

    def _save(self):
        progress = [self.step, self.tokens_seen, self.phase, self.step_of_phase]
        state = {
            "config": asdict(self.recipe.config),
            "weights": self.model.state_dict(),
            "optimiser": self.optimiser.state(),
            "progress": progress,
        }
        part = self.checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.checkpoint)
        self.saved_at = time.monotonic()

    def run(self):
        """Works through the rest of the plan."""
        print(f"{n_parameters(self.model)} parameters on {self.device}, from step {self.step}", flush=True)
        for index, phase in enumerate(self.recipe.plan):
            if index >= self.phase:
                self._run_phase(index, phase)
                self.phase, self.step_of_phase = index + 1, 0
                self._save()

    def _run_phase(self, index, phase):
        # A phase that goes on after a stop takes new rows instead of building again what it has seen.
        seed = self.recipe.seed + index * 2**26 + self.step_of_phase * 2**10
        batches = Batches(self.corpus, self.tokenizer, self.recipe.forms, phase.length, phase.rows, seed)
        n_steps = sum(each.steps for each in self.recipe.plan)
        try:
            while self.step_of_phase < phase.steps:
                self._step(batches.next(), rate_at(self.step, n_steps))
                self.tokens_seen += phase.rows * phase.length
                if self.step % STEPS_PER_LINE == 0:
                    self._log_line(phase)
                if time.monotonic() - self.saved_at > SECONDS_PER_CHECKPOINT:
                    self._save()
        finally:
            batches.stop()

    def _step(self, batch, rate):
        batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            loss, previous, link, watched = self.training_pass(self.model, batch)
        (loss + PREVIOUS_WEIGHT * previous + LINK_WEIGHT * link).backward()
        self.optimiser.step(rate)
        self.log.add(torch.cat([torch.stack([loss, previous, link]).detach(), watched]))
        self.step += 1
        self.step_of_phase += 1

    def _log_line(self, phase):
        self.log.write(
            step=self.step,
            length=phase.length,
            tokens=self.tokens_seen,
            wall_s=round(time.monotonic() - self.started_at, 1),
            cpu_s=round(time.process_time(), 1),
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=RECIPES)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="checkpoint and log")
    parser.add_argument("--binary", type=Path, default=default_binary(), help="the generator")
    parser.add_argument("--plan", type=Phase.parse, nargs="+", metavar="LENGTHxROWSxSTEPS")
    parser.add_argument("--compile", action="store_true", help="a sixth less time per step after minutes of compiling")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recipe = RECIPES[arguments.model]
    if arguments.plan:
        recipe = replace(recipe, plan=tuple(arguments.plan))
    arguments.folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(arguments.tokenizer))
    trainer = Trainer(arguments.model, recipe, tokenizer, Corpus(arguments.binary), arguments.folder)
    if arguments.compile:
        trainer.training_pass = torch.compile(training_pass, dynamic=True)
    trainer.run()


if __name__ == "__main__":
    main()
