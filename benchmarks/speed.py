"""Speed and memory of the lookup, the quantizers and a whole training step, each against its peers.

    python benchmarks/speed.py [--device cpu|cuda] [--only lookup|scaling|quantizer|step|rivals|color]

No time is a target by itself: each row is a ratio of medians from one run, measured in turn.
"""

from __future__ import annotations

import argparse
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import peers
import quality
import torch
from measure import interleaved, peak_bytes, report
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from vqvae_book.color import CIFAR, SHAPES, SONNET, TEN
from vqvae_book.rivals import METHODS, settings
from vqvae_lib import (
    BatchLoader,
    VQVAEConfig,
    VQVAETrainer,
    best_device,
    create_dataloader,
    data_root,
    nearest_code,
)

LOOKUPS = ((6272, 512), (6272, 8192), (50176, 1024), (100352, 65536))
CHUNKS = (64, 128, 256, 512, 1024, 2048, 4096)
DIM = 64


def bare_product(z: torch.Tensor, codebook: torch.Tensor, rows: int) -> Callable[[], None]:
    """The product z E^T in chunks of ``rows``, into one buffer, and nothing else."""
    buffer = z.new_empty(rows, len(codebook))

    def run() -> None:
        for part in z.split(rows):
            torch.mm(part, codebook.T, out=buffer[: len(part)])

    return run


def best_chunks(z: torch.Tensor, codebook: torch.Tensor, device: str) -> int:
    """The chunk size at which the bare product is fastest; chunks of more than 256 MiB are left out."""
    sizes = [rows for rows in CHUNKS if rows * len(codebook) <= 1 << 26]
    part = z[: max(sizes)]
    times = interleaved({str(rows): bare_product(part, codebook, rows) for rows in sizes}, seconds=2, device=device)
    return int(min(times, key=times.get))


def lookup(device: str) -> list[dict[str, Any]]:
    """Rows: our lookup against the bare product and the textbook formula."""
    rows = []
    for n, k in LOOKUPS:
        z, codebook = torch.randn(n, DIM, device=device), torch.randn(k, DIM, device=device)
        chunk = best_chunks(z, codebook, device)
        contenders = {"ours": lambda: nearest_code(z, codebook), "bare": bare_product(z, codebook, chunk)}  # noqa: B023
        if n * k <= 1 << 27:  # the textbook's matrices of the largest case would not fit into memory
            contenders["textbook"] = lambda: peers.textbook_lookup(z, codebook)  # noqa: B023
        times = interleaved(contenders, device=device)
        row = {
            "what": f"lookup {n} x {k}",
            "ours ms": times["ours"] * 1e3,
            "bare product ms": times["bare"] * 1e3,
            "ours / bare": times["ours"] / times["bare"],
            "MiB beyond": (peak_bytes(contenders["ours"], device) - 8 * n) / 2**20,
        }
        if "textbook" in times:
            row["textbook / ours"] = times["textbook"] / times["ours"]
        rows.append(row)
    return rows


def scaling(device: str) -> list[dict[str, Any]]:
    """Rows: time and memory of our lookup and of the bare product as K grows, and as N grows."""
    rows = []
    sizes = [(6272, 512 * 4**i) for i in range(1, 4)] + [(6272, 65536)] + [(6272 * 4**i, 512) for i in range(4)]
    for n, k in sorted(sizes):
        z, codebook = torch.randn(n, DIM, device=device), torch.randn(k, DIM, device=device)
        bare = bare_product(z, codebook, best_chunks(z, codebook, device))
        times = interleaved({"ours": lambda: nearest_code(z, codebook), "bare": bare}, device=device)  # noqa: B023
        rows.append(
            {
                "N": n,
                "K": k,
                "ours ms": times["ours"] * 1e3,
                "bare product ms": times["bare"] * 1e3,
                "MiB beyond": (peak_bytes(lambda: nearest_code(z, codebook), device) - 8 * n) / 2**20,  # noqa: B023
            }
        )
    return rows


def quantizer(device: str) -> list[dict[str, Any]]:
    """Rows: forward, backward and codebook update of the quantizers, (128, 64, 7, 7), K = 512."""
    configs = best_configs(device)
    z_e = torch.randn(128, DIM, 7, 7, device=device).to(memory_format=torch.channels_last)
    grad = torch.randn_like(z_e)

    def contender(module: torch.nn.Module) -> Callable[[], None]:
        module.to(device).train()
        parameters = list(module.parameters())
        optimizer = torch.optim.Adam(parameters, lr=1e-3) if parameters else None

        def run() -> None:
            z = z_e.clone().requires_grad_()
            z_q, loss, _ = module(z)
            torch.autograd.backward([z_q, loss], [grad, torch.ones_like(loss)])
            if optimizer is not None:
                optimizer.step()
                optimizer.zero_grad()

        return run

    modules = {name: peers.trainer(name, config).model.vq for name, config in configs.items()}
    times = interleaved({name: contender(module) for name, module in modules.items()}, seconds=15, device=device)
    ours = times.pop("ours")
    return [
        {
            "what": f"quantizer step against {name}",
            "against": name,
            "ours ms": ours * 1e3,
            "theirs ms": t * 1e3,
            "theirs / ours": t / ours,
        }
        for name, t in times.items()
    ]


def best_configs(device: str) -> dict[str, VQVAEConfig]:
    """Each contender's configuration as ``quality.py``'s search found it."""
    done, found = quality.finished(), {}
    for name in peers.CONTENDERS:
        _, best = quality.search(name, "mnist", device, done)
        if best is None:
            raise SystemExit(f"The search of {name} on {device} is not finished: run quality.py --suite search first.")
        found[name] = replace(best.config(), seed=0, lr=1e-3, schedule="constant")  # a run without a plan
    return found


def step(device: str) -> list[dict[str, Any]]:
    """Rows: one optimizer step of the whole model, batch 128, loading included.

    Against each peer at its best, in our loop (what the quantizer alone costs), and with "own loop" as its users would
    run it: float32, contiguous, torchvision's loader.
    """
    configs = best_configs(device)
    trainers = {name: peers.trainer(name, config) for name, config in configs.items()}
    trainers["ours float32"] = peers.trainer("ours", replace(configs["ours"], precision="float32"))
    for name in ("textbook", "vqp"):
        plain = trainers[f"{name}, own loop"] = peers.trainer(name, configs[name])
        plain.dtype = None
        plain.model.to(memory_format=torch.contiguous_format)
    loader = create_dataloader(configs["ours"], stand_in=False)
    torchvision_set = datasets.MNIST(data_root(), train=True, transform=transforms.ToTensor())
    torchvision_loader = DataLoader(torchvision_set, batch_size=128, shuffle=True, drop_last=True, num_workers=2)
    count = 15

    def contender(trainer: Any, batches: Any) -> Callable[[], None]:
        return lambda: trainer.fit(batches, steps=count)

    batches, own_batches = endless(torchvision_loader), endless(loader)
    times = interleaved(
        {
            name: contender(trainer, batches if name.endswith("own loop") else own_batches)
            for name, trainer in trainers.items()
        },
        seconds=200,
        device=device,
    )
    return [
        {
            "what": f"training step against {name}",
            "against": name,
            "ours ms": times["ours"] / count * 1e3,
            "theirs ms": times[name] / count * 1e3,
            "theirs / ours": times[name] / times["ours"],
        }
        for name in trainers
        if name != "ours"
    ]


def in_turn(configs: dict[str, VQVAEConfig], data: str, against: str) -> list[dict[str, Any]]:
    """Rows: one training step of each configuration, loading included, relative to that of one of them."""
    count, times = 5, {}
    for name, config in configs.items():
        trainer = VQVAETrainer(replace(config, lr=1e-3, schedule="constant"))  # a run without a plan
        loader = create_dataloader(config, data, stand_in=False)
        times[name] = functools.partial(trainer.fit, endless(loader), steps=count)
    times = interleaved(times, seconds=60, device=next(iter(configs.values())).device)
    return [{"what": name, "ms": t / count * 1e3, "relative": t / times[against]} for name, t in times.items()]


def rivals(device: str) -> list[dict[str, Any]]:
    """Rows: each quantizer of chapter 10, against the plain codebook, 2^10 codes nominally."""
    configs = {method: VQVAEConfig(device=device, **settings(method, 10)[0]) for method in METHODS}
    return in_turn(configs, "mnist", "vq")


def color(device: str) -> list[dict[str, Any]]:
    """Rows: models of chapter 11, against the plain one, 512 codes; batches of 32."""
    common = {"device": device, **SHAPES[CIFAR]}
    kinds = {"plain": {}, "sonnet": SONNET, "field": SONNET | TEN}
    kinds |= {f"K = {K}": {"num_embeddings": K} for K in (64, 4096)}
    return in_turn({name: VQVAEConfig(**common, **fields) for name, fields in kinds.items()}, CIFAR, "plain")


def endless(loader: DataLoader | BatchLoader) -> Iterator[Any]:
    """Pass over ``loader`` again and again.

    A run takes an iterator as it stands, so each goes on where the last one stopped: starting workers is not timed.
    """
    while True:
        yield from loader


SUITES = {suite.__name__: suite for suite in (lookup, scaling, quantizer, step, rivals, color)}


def main() -> None:
    """Run each suite in a process of its own, so that none sees another's memory, and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default=best_device())
    parser.add_argument("--only", choices=SUITES)
    arguments = parser.parse_args()
    if arguments.only:
        torch.manual_seed(0)
        report(arguments.only, SUITES[arguments.only](arguments.device), arguments.device)
        return
    for suite in SUITES:
        command = [sys.executable, __file__, "--device", arguments.device, "--only", suite]
        subprocess.run(command, check=True, env=os.environ)


if __name__ == "__main__":
    main()
