"""Quality: test error after equal budgets against the peers, and whether the model holds over K, D and beta.

    python benchmarks/quality.py [--suite budgets|grid|description] [--data mnist] [--part 1/2] [--table]

Each finished run is one line of ``results/quality.jsonl``; started again, it goes on with what is missing. Two
processes, each with one thread and its part, use two cores better than one process does. ``--table`` only prints.
Convolutions run in the precision that the library chooses for the device, every quantizer in float32; the
description's setting runs in float32 throughout, as its code does.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from typing import Any, NamedTuple

import peers
import torch
from measure import RESULTS, machine, report

from vqvae_lib import VQVAEConfig, best_device, create_dataloader
from vqvae_lib.stored import measured

FILE = RESULTS / "quality.jsonl"
SEEDS = (0, 1, 2)
LADDER = (156, 234, 312, 468)
OTHER_RATES = (3e-3, 1e-3)  # peaks for the peers: the library's default was chosen for ours


class Run(NamedTuple):
    """What one training run is; equal runs are not repeated."""

    suite: str
    contender: str
    data: str
    steps: int
    seed: int
    K: int = 512
    D: int = 64
    beta: float = 0.25
    lr: float = 1e-2  # also of the lines that were written before it varied


def plan(data: str) -> list[Run]:
    """List all runs, the shorter first."""
    budgets = [
        Run("budgets", name, data, steps, seed)
        for steps, seed, name in itertools.product((936, 1404, 9360), SEEDS, ("ours", "textbook", "vqp"))
    ]
    ladder = [Run("budgets", "ours", data, steps, seed) for steps, seed in itertools.product(LADDER, SEEDS)]
    grid = [
        Run("grid", "ours", data, 300, 0, K, D, beta)
        for K, D, beta in itertools.product((2, 16, 128, 512, 2048), (4, 16, 64), (0.05, 0.25, 1.0, 4.0))
    ]
    rates = [
        Run("budgets", name, data, 1404, seed, lr=lr)
        for lr, seed, name in itertools.product(OTHER_RATES, SEEDS, ("textbook", "vqp"))
    ]
    description = [Run("description", "description", data, 9360, 0, lr=1e-3)]
    return sorted(budgets + rates + ladder + grid + description, key=lambda run: run.steps)


def finished() -> dict[Run, dict[str, Any]]:
    """Read the results there are."""
    if not FILE.exists():
        return {}
    lines = [json.loads(line) for line in FILE.read_text().splitlines()]
    return {Run(**line["run"]): line for line in lines}


def perform(run: Run, device: str) -> dict[str, Any]:
    """Train and measure one run."""
    as_described = {"schedule": "constant", "precision": "float32"} if run.suite == "description" else {}
    channels = 3 if run.data == "cifar10" else 1
    config = VQVAEConfig(
        in_channels=channels, num_embeddings=run.K, embedding_dim=run.D, commitment_cost=run.beta, seed=run.seed,
        lr=run.lr, device=device, **as_described,
    )  # fmt: skip
    trainer = peers.trainer(run.contender, config)
    train = create_dataloader(config, run.data, train=True, stand_in=False)
    test = create_dataloader(config, run.data, train=False, stand_in=False)
    start = time.perf_counter()
    trainer.fit(train, steps=run.steps)
    seconds = time.perf_counter() - start
    numbers = trainer.evaluate(test)
    return {
        "run": run._asdict(),
        "mse": numbers["recon_loss"],
        "normalised": numbers["recon_loss"] / test.dataset.variance(),
        "active": int(numbers["active_codes"]),
        "perplexity": numbers["perplexity"],
        "seconds": seconds,
        "machine": machine(device),
    }


def table(data: str) -> list[dict[str, Any]]:
    """Rows: mean and range over seeds of each contender and budget, then the worst cells of the grid."""
    groups: dict[tuple[str, int, float], list[dict[str, Any]]] = {}
    done = {run: line for run, line in finished().items() if run.data == data}
    for run, line in done.items():
        if run.suite != "grid":
            groups.setdefault((run.contender, run.steps, run.lr), []).append(line)
    rows = []
    for (contender, steps, lr), lines in sorted(groups.items(), key=lambda item: (item[0][1], item[0][0], -item[0][2])):
        errors = [line["mse"] for line in lines]
        rows.append(
            {
                "what": f"{contender}, {steps} steps",
                "peak rate": lr,
                "seeds": len(lines),
                "test MSE": statistics.mean(errors),
                "lowest": min(errors),
                "highest": max(errors),
                "fewest codes": min(line["active"] for line in lines),
                "perplexity": statistics.mean(line["perplexity"] for line in lines),
            }
        )
    rows += sooner(groups)
    cells = {run: line for run, line in done.items() if run.suite == "grid"}
    for K in sorted({run.K for run in cells}):
        worst = max((line["normalised"], run) for run, line in cells.items() if run.K == K)
        count = sum(run.K == K for run in cells)
        where = f"worst at D = {worst[1].D}, beta = {worst[1].beta:g}"
        rows.append({"what": f"grid K = {K}, {count} cells, {where}", "normalised MSE": worst[0]})
    return rows


def sooner(groups: dict[tuple[str, int, float], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Rows: how much sooner ours reaches a peer's error.

    Ours takes the fewest steps of the ladder at which the highest error over its seeds is not above the lowest of the
    peer's, at each of the peer's rates. Steps become seconds by the medians of ``speed.py``'s step suite, measured in
    turn in one run.
    """
    try:
        steps_measured = measured("step", best_device())["rows"]
    except FileNotFoundError:
        return []
    slower = {row["what"].rpartition(" ")[2]: row["theirs / ours"] for row in steps_measured}
    rows = []
    asked = {("description", 9360), ("textbook", 1404), ("vqp", 1404)}
    for peer, steps, lr in sorted(key for key in groups if key[:2] in asked):
        target = min(line["mse"] for line in groups[peer, steps, lr])
        budgets = [
            budget
            for (name, budget, _), lines in groups.items()
            if name == "ours" and max(line["mse"] for line in lines) <= target
        ]
        if budgets:
            row = {"what": f"sooner than {peer}, {steps} steps", "peak rate": lr, "test MSE": target}
            row["our steps"] = min(budgets)
            row["times sooner"] = steps * slower[peer] / min(budgets)
            rows.append(row)
    return rows


def main() -> None:
    """Perform what is missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", choices=("budgets", "grid", "description"))
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--part", default="1/1", help="this process's share: 1/2 and 2/2 together do all")
    parser.add_argument("--longest", type=int, default=9360, help="leave out runs of more steps")
    parser.add_argument("--table", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    part, parts = map(int, arguments.part.split("/"))
    if parts > 1:
        torch.set_num_threads(1)
    device = best_device()
    RESULTS.mkdir(exist_ok=True)
    runs = [
        run for run in plan(arguments.data) if arguments.suite in (None, run.suite) and run.steps <= arguments.longest
    ]
    missing = [run for run in runs if run not in finished()]
    for run in [] if arguments.table else missing[part - 1 :: parts]:
        line = perform(run, device)
        with FILE.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(run, f"test MSE {line['mse']:.5f}, {line['active']} codes, {line['seconds']:.0f} s", flush=True)
    report("quality", table(arguments.data), device)


if __name__ == "__main__":
    main()
