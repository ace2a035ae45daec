"""Train the stored runs that the chapters draw from, and check that they can be made again.

    python tools/runs.py [PREFIX]     train what is missing or out of date (goes on where it was stopped)
    python tools/runs.py --list       name them
    python tools/runs.py --verify X   train run X again and compare, within the spread of its seeds

Runs need the real MNIST (VQVAE_DATA) and take minutes each on two cores.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

from vqvae_lib import VQVAEConfig
from vqvae_lib.stored import FOLDER, record_run, stored_run, stored_runs

SEEDS = (0, 1, 2)


def specifications() -> dict[str, tuple[VQVAEConfig, int]]:
    """Name -> configuration and steps of every stored run."""
    specs = {}
    for seed in SEEDS:
        for update in ("ema", "gradient"):  # chapter 4: two ways to move the codebook
            specs[f"{update}-468-seed{seed}"] = (VQVAEConfig(codebook_update=update, seed=seed, device="cpu"), 468)
        for size in (4, 16, 64, 256, 1024):  # chapter 5: rate against distortion; K = 512 is ema-468
            specs[f"size{size:04d}-468-seed{seed}"] = (VQVAEConfig(num_embeddings=size, seed=seed, device="cpu"), 468)
    return specs


def up_to_date(name: str, config: VQVAEConfig, steps: int) -> bool:
    """Whether the stored run of that name was made with this configuration and number of steps."""
    if not (FOLDER / f"{name}.json").exists():
        return False
    run = stored_run(name)
    return run.config.identity() == config.identity() and run.steps == steps


def train_missing(prefix: str) -> None:
    """Train and write every run that is missing; each is whole on disk before the next begins."""
    specs = {name: spec for name, spec in specifications().items() if name.startswith(prefix)}
    missing = {name: spec for name, spec in specs.items() if not up_to_date(name, *spec)}
    print(f"==> {len(specs)} stored runs, {len(missing)} to train", flush=True)
    start, total, done = time.perf_counter(), sum(steps for _, steps in missing.values()), 0
    for name, (config, steps) in missing.items():
        run = record_run(name, config, steps)
        run.write()
        done += steps
        left = (time.perf_counter() - start) / done * (total - done)
        print(
            f"{name}: test MSE {run.evaluation['recon_loss']:.5f}, {run.provenance['seconds']:.0f} s; "
            f"about {left / 60:.0f} min left",
            flush=True,
        )


def verify(name: str) -> int:
    """Train one run again with its seed; an exit status, 0 where its test MSE is within the spread of its seeds."""
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
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--verify", metavar="NAME")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(specifications()))
        return 0
    if arguments.verify:
        return verify(arguments.verify)
    train_missing(arguments.prefix)
    return 0


if __name__ == "__main__":
    sys.exit(main())
