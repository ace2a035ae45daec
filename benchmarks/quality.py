"""Quality: test error, bits and seconds of every contender of ``peers.py``, each at the best of its own search.

    python benchmarks/quality.py [--suite search|report|recipe|prior|grid] [--data cifar10] [--part 1/2] [--table]

``search``: all get the same search, at most 12 settings (vqp 12 without and 12 with its rotation trick) of 468 steps,
seed 100. Trained on the first five sixths of the training images, judged on the rest: the best has the lowest error
there, and no test image is seen. From ``START`` on, ``STAGES`` are taken in turn: all combinations of a stage's values
are run, everything else as in the best setting so far. ``report``: each at its best, on all training images, other
seeds, judged on the test set; bits per image are those at the entropy of use. ``prior``: the runs of 1,404 steps again,
with the bits under a learned prior, of one configuration for all. ``recipe``: other ways of training ours, on held-out
images again (``recipe.py``). ``grid``: whether ours holds over K, D and beta.

Each finished run is one line of ``results/fair.jsonl`` with all its options; started again, it goes on with what is
missing. One thread per process; two processes, each with its part, use two cores better than one. Convolutions run in
the precision that the library chooses for the device, every quantizer in float32.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from itertools import product
from typing import Any, NamedTuple

import peers
import recipe
import torch
from measure import RESULTS, machine, report

from vqvae_book.color import SHAPES, SONNET
from vqvae_book.results import MEASURED, measured
from vqvae_lib import ImageDataset, VQVAEConfig, best_device, create_dataloader, load_images
from vqvae_lib.prior import PixelCNN, PriorConfig, create_code_loader
from vqvae_lib.trainer import Trainer, TrainingError

FILE = RESULTS / "fair.jsonl"
SUITES = ("search", "report", "recipe", "prior", "grid")
SEEDS = (0, 1, 2)
BUDGETS = {"mnist": (936, 1404, 9360), "cifar10": (10_000,)}  # steps
FIELDS = {"mnist": {}, "cifar10": SHAPES["cifar10"] | SONNET}  # on natural images the model of the color chapter
AMONG = {"mnist": peers.CONTENDERS, "cifar10": ("vqp", "vqp rotation")}  # ours is the stored study there
LADDER = (156, 234, 312, 468, 702, 1170)  # of ours alone: how soon is it as good as a peer?
START = {"decay": 0.95, "threshold": 0.04, "beta": 0.25}  # the middle of each; a threshold is a share of the mean use
RATES = {"mnist": {"lr": (5e-3, 1e-2, 2e-2)}, "cifar10": {"lr": (2e-3, 4e-3, 8e-3)}}
BETAS, NEAR = {"beta": (0.1, 0.25, 1.0)}, {"times": (0.7, 1.0, 1.4)}
STAGES = ({"decay": (0.8, 0.9, 0.95, 0.99)}, {"threshold": (0.01, 0.04, 0.16)}, BETAS, NEAR)


class Run(NamedTuple):
    """What one training run is; equal runs are not repeated."""

    suite: str
    contender: str
    data: str
    device: str
    steps: int
    seed: int
    lr: float
    beta: float
    decay: float | None  # None where the contender has no such option
    threshold: float | None
    recipe: str = ""
    K: int = 512
    D: int = 64

    def config(self) -> VQVAEConfig:
        """The library's configuration of this run."""
        given = {"decay": self.decay, "restart_threshold": self.threshold}
        given = {name: value for name, value in given.items() if value is not None}
        sizes = {"num_embeddings": self.K, "embedding_dim": self.D, "commitment_cost": self.beta}
        common = {"lr": self.lr, "seed": self.seed, "device": self.device}
        return VQVAEConfig(**FIELDS[self.data] | sizes | common | given)


def finished() -> dict[Run, dict[str, Any]]:
    """Read the results there are."""
    lines = map(json.loads, FILE.read_text().splitlines()) if FILE.exists() else ()
    return {Run(**line["run"]): line for line in lines}


def failed(line: dict[str, Any]) -> bool:
    """Whether training diverged or ended at a constant picture."""
    return line["mse"] is None or line["normalized"] > 0.9


def neighbors(best: Run, stage: dict[str, tuple[float, ...]]) -> list[Run]:
    """All combinations of a stage's values, everything else as in ``best``, which is among them but for the first."""
    if stage is NEAR:
        return [best._replace(lr=round(best.lr * factor, 6)) for factor in stage["times"]]
    return [best._replace(**dict(zip(stage, values, strict=True))) for values in product(*stage.values())]


def search(contender: str, data: str, device: str, done: dict[Run, Any]) -> tuple[list[Run], Run | None]:
    """Return the settings of a search as far as they are known, and the best once all of them are done."""
    plain = contender == "textbook"
    start = dict.fromkeys(START) | {"beta": START["beta"]} if plain else START
    best = Run("search", contender, data, device, steps=468, seed=100, lr=math.nan, **start)
    settings: list[Run] = []
    for stage in (RATES[data] | BETAS, NEAR) if plain else (RATES[data], *STAGES):
        tried = neighbors(best, stage)
        settings += [run for run in tried if run not in settings]
        if any(run not in done for run in tried):
            return settings, None
        best = min(tried, key=lambda run: math.inf if failed(done[run]) else done[run]["mse"])
    return settings, best


def plan(suite: str, data: str, device: str, done: dict[Run, Any]) -> list[Run]:
    """List the runs of a suite in their order; those of a search as far as they are known."""
    searches = {name: search(name, data, device, done) for name in AMONG[data]}
    if suite == "search":
        return [run for settings, _ in searches.values() for run in settings]
    bests = [best._replace(suite=suite) for _, best in searches.values() if best is not None]
    if len(bests) < len(searches):
        raise SystemExit("The search is not finished: run --suite search first.")
    ours = bests[0]
    if data == "cifar10":  # a search of few steps may prefer a short memory: vqp with the decay of ours, too
        bests += [best._replace(decay=SONNET["decay"]) for best in bests if best.contender == "vqp"]
    if suite == "recipe":
        return [ours._replace(steps=steps, seed=0, recipe=name) for name, steps in recipe.RECIPES.items()]
    if suite == "grid":
        sizes = product((2, 16, 128, 512, 2048), (4, 16, 64), (0.05, 0.25, 1.0, 4.0))
        return [ours._replace(steps=300, seed=0, K=K, D=D, beta=beta) for K, D, beta in sizes]
    budgets = (1404,) if suite == "prior" else BUDGETS[data]
    runs = [best._replace(steps=steps, seed=seed) for steps, seed, best in product(budgets, SEEDS, bests)]
    ladder = [ours._replace(steps=steps, seed=seed) for steps, seed in product(LADDER, SEEDS)]
    with_ladder = suite == "report" and data == "mnist"
    return sorted(runs + (ladder if with_ladder else []), key=lambda run: run.steps > 1404)  # the longest last


def perform(run: Run) -> dict[str, Any]:
    """Train and measure one run."""
    train, judged = load_images(run.data, stand_in=False), load_images(run.data, train=False, stand_in=False)
    if run.suite in ("search", "recipe"):  # which choose: on training images that are held out
        kept = len(train) * 5 // 6
        train, judged = train.subset(slice(0, kept)), train.subset(slice(kept, None))
    config, positions, line = run.config(), train.images[0, 0].numel() // 16, {"run": run._asdict(), "mse": None}
    loader, judges = (create_dataloader(config, dataset=part, train=part is train) for part in (train, judged))
    trainer = peers.trainer(run.contender, config, positions)
    start, cpu_start, averages = time.perf_counter(), time.process_time(), {}
    try:
        if run.recipe:
            averages = recipe.fit(trainer, train, run.recipe, run.steps)
        else:
            trainer.fit(loader, steps=run.steps)
        line["seconds"], line["cpu seconds"] = time.perf_counter() - start, time.process_time() - cpu_start
        numbers = trainer.evaluate(judges)
        line |= {"mse": numbers["recon_loss"], "normalized": numbers["recon_loss"] / judged.variance()}
        line |= {"active": int(numbers["active_codes"]), "perplexity": numbers["perplexity"]}
        line["bits"] = positions * math.log2(numbers["perplexity"])
        if run.suite == "prior":
            line["prior bits"] = learned_bits(trainer, train, judged)
        for name, weights in averages.items():
            trainer.model.load_state_dict(weights)
            line[name] = trainer.evaluate(judges)["recon_loss"]
    except (TrainingError, ValueError) as error:  # the quantizer refuses vectors that are not finite
        line["failed"] = str(error)
    return line | {"machine": machine(run.device)}


def learned_bits(trainer: Trainer, train: ImageDataset, judged: ImageDataset) -> float:
    """Bits per image under a prior that learned the codes of the training images."""
    model, of = trainer.model.eval(), trainer.config
    config = PriorConfig(num_embeddings=of.num_embeddings, layers=6, seed=of.seed, device=of.device)
    learned = Trainer(PixelCNN(config), config)
    learned.fit(create_code_loader(config, model, train), steps=1874)
    return learned.evaluate(create_code_loader(config, model, judged, train=False))["bits_per_image"]


def table(done: dict[Run, dict[str, Any]], device: str) -> list[dict[str, Any]]:
    """Rows: every setting of every suite with its options, over its seeds; then what comes sooner."""
    groups: dict[Run, list[dict[str, Any]]] = {}
    for run, line in done.items():
        groups.setdefault(run._replace(seed=0), []).append(line)
    rows = []
    for run, lines in sorted(groups.items(), key=lambda item: (SUITES.index(item[0].suite), item[0].steps)):
        sound = [line for line in lines if not failed(line)]  # a run that failed is in no mean
        row = {name: getattr(run, name) for name in ("suite", "contender", "recipe", "steps")}
        row |= {"seeds": len(sound), "failed": len(lines) - len(sound)}
        for name in dict.fromkeys(name for line in sound for name in line if isinstance(line[name], int | float)):
            row[name] = statistics.mean(line[name] for line in sound if name in line)
        errors = [line["mse"] for line in sound]
        row |= {"lowest": min(errors, default=""), "highest": max(errors, default="")}
        row |= {"peak rate": run.lr, "beta": run.beta, "decay": run.decay or "", "restart below": run.threshold or ""}
        rows.append(row | {"rotation trick": "yes" if run.contender == "vqp rotation" else "", "K": run.K, "D": run.D})
    return rows + sooner(rows, device)


def machines(done: dict[Run, dict[str, Any]]) -> dict[str, str]:
    """Where and when the runs of a table were made: all that differs is named."""
    ran = [line["machine"] for line in done.values()]
    found = {name: " and ".join(sorted({str(one[name]) for one in ran})) for name in ran[0]}
    days = sorted(one["date"] for one in ran)
    return found | {"date": " to ".join(dict.fromkeys((days[0], days[-1])))}


def sooner(rows: list[dict[str, Any]], device: str) -> list[dict[str, Any]]:
    """Rows: how much sooner ours is as good as a peer after 1,404 steps.

    Ours takes the fewest steps at which the highest error over its seeds is not above the lowest of the peer's. Steps
    become seconds by the medians of ``speed.py``'s step suite, measured in turn in one run.
    """
    timed = measured("step", device)["rows"] if (MEASURED / f"step-{device}.json").exists() else []
    slower = {row["against"]: row["theirs / ours"] for row in timed if "against" in row}
    found, reports = [], [row for row in rows if row["suite"] == "report" and row["seeds"] == len(SEEDS)]
    for peer in [row for row in reports if row["contender"] in slower and row["steps"] == 1404]:
        name, ours = peer["contender"], [row for row in reports if row["contender"] == "ours"]
        if steps := [row["steps"] for row in ours if row["highest"] <= peer["lowest"]]:
            times = 1404 * slower[name] / min(steps)
            found.append({"suite": "sooner", "contender": name, "our steps": min(steps), "times sooner": times})
    return found


def main() -> None:
    """Perform what is missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", choices=SUITES)
    parser.add_argument("--data", choices=tuple(FIELDS), default="mnist")
    parser.add_argument("--device", default=best_device())
    parser.add_argument("--part", default="1/1", help="this process's share: 1/2 and 2/2 together do all")
    parser.add_argument(
        "--longest", type=int, default=max(map(max, BUDGETS.values())), help="leave out runs of more steps"
    )
    parser.add_argument("--only", choices=peers.CONTENDERS, help="one contender's runs")
    parser.add_argument("--table", action="store_true", help="train nothing")
    asked = parser.parse_args()
    part, parts = map(int, asked.part.split("/"))
    torch.set_num_threads(1)

    def missing(suite: str) -> list[Run]:
        done = finished()
        runs = [run for run in plan(suite, asked.data, asked.device, done) if run.steps <= asked.longest]
        mine = [run for run in runs if (peers.CONTENDERS.index(run.contender) + run.seed) % parts == part - 1]
        return [run for run in mine if run not in done and asked.only in (None, run.contender)]

    usual = SUITES if asked.data == "mnist" else SUITES[:2]
    if asked.suite not in (None, *usual):
        parser.error(f"--suite {asked.suite} is not for --data {asked.data}: use {' or '.join(usual)}")
    for suite in () if asked.table else usual if asked.suite is None else (asked.suite,):
        while runs := missing(suite):
            line = perform(runs[0])
            with FILE.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(runs[0], line.get("failed") or f"MSE {line['mse']:.5f}, {line['seconds']:.0f} s", flush=True)
    name = "fair" if asked.data == "mnist" else f"fair-{asked.data}"
    done = {run: line for run, line in finished().items() if (run.data, run.device) == (asked.data, asked.device)}
    report(name, table(done, asked.device), asked.device, machines(done) if done else None)


if __name__ == "__main__":
    main()
