"""Train the stored runs that the chapters draw from, and check that they can be made again.

    python tools/runs.py [PREFIX]     train what is missing or out of date (goes on where it was stopped); of studies,
                                      perform what is missing
    python tools/runs.py --part 1/2   the same, beside another process that is given --part 2/2
    python tools/runs.py --list       name them
    python tools/runs.py --verify X   train run X again and compare, within the spread of its seeds

Runs need the real MNIST (VQVAE_DATA) and take minutes each on two cores.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from pathlib import Path

from studies import SEEDS, studies

from vqvae_lib import VQVAEConfig
from vqvae_lib.stored import FOLDER, STUDIES, record_run, stored_run, stored_runs, stored_studies

SWEEP = "sweep-"  # chapter 5: one short run for each size of codebook, each beta and each seed
SWEEP_SIZES, SWEEP_BETAS, SWEEP_STEPS = (4, 16, 64, 256, 1024, 4096), (0, 0.1, 0.25, 1, 2, 4), 234
SWEEP_POINTS = 24  # of each learning curve: 108 runs are shipped with the library


def specifications() -> dict[str, tuple[VQVAEConfig, int]]:
    """Name -> configuration and steps of every stored run."""
    specs = {}
    for seed in SEEDS:
        for update in ("ema", "gradient"):  # chapter 4: two ways to move the codebook
            specs[f"{update}-468-seed{seed}"] = (VQVAEConfig(codebook_update=update, seed=seed, device="cpu"), 468)
        # chapter 4: the same in float32 throughout; ema-468 was trained in the device's own precision
        specs[f"float32-468-seed{seed}"] = (VQVAEConfig(precision="float32", seed=seed, device="cpu"), 468)
        for size in (4, 16, 64, 256, 1024):  # chapter 5: rate against distortion; K = 512 is ema-468
            specs[f"size{size:04d}-468-seed{seed}"] = (VQVAEConfig(num_embeddings=size, seed=seed, device="cpu"), 468)
    for size, beta, seed in itertools.product(SWEEP_SIZES, SWEEP_BETAS, SEEDS):
        config = VQVAEConfig(num_embeddings=size, commitment_cost=float(beta), seed=seed, device="cpu")
        specs[f"{SWEEP}K{size:04d}-b{beta:g}-seed{seed}"] = (config, SWEEP_STEPS)
    return specs


def up_to_date(name: str, config: VQVAEConfig, steps: int, folder: Path = FOLDER) -> bool:
    """Whether the stored run of that name was made with this configuration and number of steps."""
    if not (folder / f"{name}.json").exists():
        return False
    run = stored_run(name, folder)
    return run.config.identity() == config.identity() and run.steps == steps


def in_turn(names: list[str], part: int, parts: int) -> list[str]:
    """Order names for one of several processes: its own share first, then the others' from their ends.

    So each run is trained even if only one process goes on, and two meet at most in the last one.
    """
    mine = names[part - 1 :: parts]
    return mine + [name for name in reversed(names) if name not in mine]


def train_missing(prefix: str, part: int = 1, parts: int = 1, folder: Path = FOLDER) -> None:
    """Train and write every run that is missing; each is whole on disk before the next begins."""
    specs = {name: spec for name, spec in specifications().items() if name.startswith(prefix)}
    missing = [name for name in specs if not up_to_date(name, *specs[name], folder)]
    print(f"==> {len(specs)} stored runs, {len(missing)} to train", flush=True)
    start, done = time.perf_counter(), 0
    for name in in_turn(list(specs), part, parts):
        config, steps = specs[name]
        if up_to_date(name, config, steps, folder):  # from the start, or by now: another process may have made it
            continue
        window = max(1, steps // SWEEP_POINTS) if name.startswith(SWEEP) else None
        run = record_run(name, config, steps, window=window)
        run.write(folder)
        done += steps
        todo = sum(specs[other][1] for other in missing if not up_to_date(other, *specs[other], folder))
        left = (time.perf_counter() - start) / done * todo / parts
        print(
            f"{name}: test MSE {run.evaluation['recon_loss']:.5f}, {run.provenance['seconds']:.0f} s; "
            f"about {left / 60:.0f} min left",
            flush=True,
        )


def perform_missing(prefix: str, part: int = 1, parts: int = 1, folder: Path = STUDIES) -> None:
    """Perform and write every study of chapters 6 and 7 that is missing; delete one to have it made anew."""
    makers = {name: make for name, make in studies().items() if name.startswith(prefix)}
    missing = [name for name in makers if not (folder / f"{name}.json").exists()]
    print(f"==> {len(makers)} stored studies, {len(missing)} to perform", flush=True)
    for name in in_turn(list(makers), part, parts):
        if not (folder / f"{name}.json").exists():
            study = makers[name]()
            study.write(folder)
            left = sum(not (folder / f"{other}.json").exists() for other in makers)
            print(f"{name}: {study.provenance['seconds']:.0f} s; {left} left", flush=True)


def verify_study(name: str) -> int:
    """Perform one study again with its seed and compare its errors and rates; an exit status, as ``verify``."""
    siblings = stored_studies(name.rsplit("seed", 1)[0] + "seed")
    if len(siblings) < 2:
        print(f"{name}: the tolerance is the spread of its seeds, and fewer than two are stored. Remedy: make runs.")
        return 2
    [old] = [study for study in siblings if study.name == name]
    new, status = studies()[name](), 0
    for what in {"MSE", "prior bits", "blind decoder"} & old.numbers.keys():  # each kind of study has one of them
        tolerance = 2 * statistics.stdev(study.numbers[what] for study in siblings)
        a, b = old.numbers[what], new.numbers[what]
        agree = abs(a - b) <= tolerance
        status |= not agree
        print(f"{name}, {what}: {a:.6g}, again {b:.6g}, tolerance {tolerance:.2g}: {'agree' if agree else 'DIFFER'}")
    return status


def verify(name: str) -> int:
    """Train one run again with its seed; an exit status, 0 where its test MSE is within the spread of its seeds."""
    if name in studies():
        return verify_study(name)
    old = stored_run(name)
    siblings = [run.evaluation["recon_loss"] for run in stored_runs(name.rsplit("seed", 1)[0] + "seed")]
    tolerance = 2 * statistics.stdev(siblings)
    new = record_run(name, old.config, old.steps)
    a, b = old.evaluation["recon_loss"], new.evaluation["recon_loss"]
    same = abs(a - b) <= tolerance
    print(f"{name}: stored {a:.6f}, again {b:.6f}, tolerance {tolerance:.6f}: {'agree' if same else 'DIFFER'}")
    return 0 if same else 1


def main() -> int:
    """Read the command line and do what it asks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prefix", nargs="?", default="", help="only runs whose names begin so")
    parser.add_argument("--part", metavar="I/N", default="1/1", help="share the work: this is process I of N")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--verify", metavar="NAME")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join([*specifications(), *studies()]))
        return 0
    if arguments.verify:
        return verify(arguments.verify)
    part, parts = map(int, arguments.part.split("/"))
    if not 1 <= part <= parts:
        parser.error(f"--part {arguments.part} is not possible: give I/N with 1 <= I <= N, as 1/2.")
    train_missing(arguments.prefix, part, parts)
    perform_missing(arguments.prefix, part, parts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
