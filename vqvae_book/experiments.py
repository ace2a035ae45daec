"""Make the results that the chapters draw from, and check that they can be made again.

    python -m vqvae_book.experiments [PREFIX ...]  make what is missing or out of date
    python -m vqvae_book.experiments --list [P ...]  only list it
    python -m vqvae_book.experiments --verify X      make X again and compare

They need the real MNIST (VQVAE_DATA) and take minutes each. To share the work between
two processes: ... --list | xargs -n 9 -P 2 python -m vqvae_book.experiments. Each call
then does nine experiments with one classifier.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
import sys
import time
from dataclasses import replace

from vqvae_lib import VQVAEConfig, VQVAETrainer, best_device, create_dataloader

from .color import colors
from .results import RUNS, Result, describe, provenance, stored_runs
from .rivals import rivals
from .studies import MNIST, SEEDS, Experiment, Parts, data, studies

SWEEP_SIZES, SWEEP_BETAS = (4, 16, 64, 256, 1024, 4096), (0, 0.1, 0.25, 1, 2, 4)
COMPARED = ("MSE", "prior bits", "blind decoder")  # each experiment has one of them


def runs() -> dict[str, Experiment]:
    """Return name -> the training of one VQ-VAE."""
    found: dict[str, Experiment] = {}

    def add(name: str, steps: int, window: int | None = None, **fields: object) -> None:
        config = VQVAEConfig(device="cpu", **fields)
        settings = {**config.identity(), "steps": steps}
        make = functools.partial(train, config, steps, window)
        found[f"{name}-seed{config.seed}"] = Experiment(RUNS, settings, make)

    for seed in SEEDS:
        add("ema-468", 468, seed=seed)
        add("gradient-468", 468, seed=seed, codebook_update="gradient")
        add("float32-468", 468, seed=seed, precision="float32")
        for size in (4, 16, 64, 256, 1024):  # of 512 it is ema-468
            add(f"size{size:04d}-468", 468, seed=seed, num_embeddings=size)
    add("ema-4680", 4680, seed=0)  # ten passes, for pictures of a model trained longer
    for size, beta, seed in itertools.product(SWEEP_SIZES, SWEEP_BETAS, SEEDS):
        fields = {"num_embeddings": size, "commitment_cost": float(beta), "seed": seed}
        add(f"sweep-K{size:04d}-b{beta:g}", 234, window=9, **fields)
    return found


def train(config: VQVAEConfig, steps: int, window: int | None) -> Parts:
    """Train a model on the best device and measure it on the test set."""
    config = replace(config, device=best_device())
    images, others = data()
    trainer = VQVAETrainer(config)
    loader = create_dataloader(config, dataset=images)
    trainer.fit(loader, steps=steps, window=window)
    return describe(trainer, create_dataloader(config, dataset=others, train=False))


def experiments() -> dict[str, Experiment]:
    """Return all runs and studies by name."""
    return runs() | studies() | rivals() | colors()


def up_to_date(name: str, experiment: Experiment) -> bool:
    """Whether a result that was made with these settings is stored."""
    path = experiment.folder / f"{name}.json"
    return path.exists() and Result.read(path).settings == experiment.settings


def perform(name: str, experiment: Experiment) -> Result:
    """Do one experiment, without storing the result."""
    settings = experiment.settings
    images, start = data(settings.get("data", MNIST)), time.perf_counter()
    parts = experiment.make()
    seconds = time.perf_counter() - start
    device = best_device() if experiment.folder == RUNS else "cpu"
    origin = provenance(*images, seconds, device, settings.get("precision", "auto"))
    return Result(name, settings, provenance=origin, **parts)


def verify(name: str, experiment: Experiment) -> int:
    """Do an experiment again; return 0 if it is within the spread of its seeds."""
    prefix = name.rpartition("seed")[0] + "seed"
    stored = {run.name: run.numbers for run in stored_runs(prefix, experiment.folder)}
    if name not in stored or len(stored) < 2:
        print(f"{name} and another of its seeds must be stored: run `make runs`.")
        return 2
    new, status = perform(name, experiment).numbers, 0
    for what in [what for what in COMPARED if what in new]:
        tolerance = 2 * statistics.stdev(numbers[what] for numbers in stored.values())
        a, b = stored[name][what], new[what]
        agree = abs(a - b) <= tolerance
        status |= not agree
        verdict = "agree" if agree else "DIFFER"
        print(f"{name}, {what}: {a:.6g}, again {b:.6g} (±{tolerance:.2g}): {verdict}")
    return status


def main(arguments: list[str] | None = None) -> int:
    """Read the command line and do what it asks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "prefix", nargs="*", default=[""], help="only names that start with it"
    )
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--verify", metavar="NAME", choices=experiments())
    asked, known = parser.parse_args(arguments), experiments()
    if asked.verify:
        return verify(asked.verify, known[asked.verify])
    wanted = {n: known[n] for n in known if n.startswith(tuple(asked.prefix))}
    for i, (name, experiment) in enumerate(wanted.items(), 1):
        if up_to_date(name, experiment):  # or another process has made it by now
            continue
        if asked.list:
            print(name)
            continue
        result = perform(name, experiment)
        result.write(experiment.folder)
        seconds = result.provenance["seconds"]
        print(f"{name}: {seconds:.0f} s; at most {len(wanted) - i} left", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
