"""The experiments of chapter 11: CIFAR-10, and Fashion-MNIST beside MNIST.

Each is one seed of one model on one dataset, or of a prior over a model's codes, takes
minutes on one core, and needs these data; `vqvae_book.experiments` performs and stores
them.
"""

from __future__ import annotations

import bisect
import itertools
import statistics

import torch
import torch.nn.functional as F
from torch import Tensor

from vqvae_lib.config import VQVAEConfig
from vqvae_lib.data import BatchLoader
from vqvae_lib.lookup import code_sums
from vqvae_lib.metrics import (
    collect_indices,
    mse,
    normalized_mse,
    perplexity,
    usage_counts,
)
from vqvae_lib.model import VQVAE
from vqvae_lib.prior import PixelCNN, PriorConfig

from . import sample_quality as quality
from . import studies
from .likelihood import LOG_CDFS, fitted_scale, pixel_bits
from .results import describe
from .studies import DRAWN, SEEDS, Experiment, Parts, Steps, in_parts

CIFAR, FASHION = "cifar10", "fashion_mnist"
SHAPES = {CIFAR: {"in_channels": 3, "batch_size": 32, "lr": 4e-3}}
SIZES, DIMENSIONS = (64, 512, 4096), (16, 64)  # K and D on CIFAR-10
LONG, SHORT = 10_000, 3_000  # steps on CIFAR-10
# Sonnet's example: these blocks and this decay, K 512, D 64, batches of 32.
SONNET = {"residual_layers": 2, "decay": 0.99}
# The paper's field of 8 x 8 x 10 codes: ten codebooks at each position.
TEN = {"quantizer": "grouped", "num_codebooks": 10, "embedding_dim": 160}
FOUR = {"quantizer": "residual", "num_codebooks": 4, "downsampling": 8}
WINDOW = 100  # steps per entry of a curve, as Sonnet's log has them
SWAPS, LOOKED_AT, FITTED_TO = 1000, 500, 200  # codes exchanged; images


def colors() -> dict[str, Experiment]:
    """Return name -> experiment, all of one seed before the next."""
    found: dict[str, Experiment] = {}

    def add(name: str, steps: int, data: str = CIFAR, **fields: object) -> VQVAEConfig:
        config = VQVAEConfig(seed=seed, device="cpu", **SHAPES.get(data, {}), **fields)
        choices = {"data": data, "config": config, "steps": steps, "seed": seed}
        found[f"color-{name}-seed{seed}"] = studies.study(codebook, **choices)
        return config

    for seed in SEEDS:
        sonnet = add("sonnet", LONG, **SONNET)
        add("plain", LONG, decay=SONNET["decay"])  # what do the blocks buy?
        add("field", LONG // 2, **SONNET, **TEN)
        for name, classes in (("prior", 0), ("classes", 10)):
            common = {"num_embeddings": 512, "seed": seed, "device": "cpu"}
            learned = PriorConfig(num_classes=classes, **common)
            steps = {"model": LONG, "prior": 3905}  # five passes
            choices = {"data": CIFAR, "config": sonnet, "prior": learned, "seed": seed}
            priced = studies.study(prior, steps=steps, **choices)
            found[f"color-{name}-seed{seed}"] = priced
        for K, D in itertools.product(SIZES, DIMENSIONS):
            beta = 0.25 * D / 64  # so that the commitment keeps its weight, (1.11)
            sizes = {"num_embeddings": K, "embedding_dim": D}
            add(f"K{K:04d}-D{D}", SHORT, commitment_cost=beta, **sizes)
        for K, beta in itertools.product(SIZES[:2], (0.0, 4.0)):  # 0.25: as D64
            name = f"K{K:04d}-b{beta:g}"
            add(name, SHORT, num_embeddings=K, commitment_cost=beta)
        # 8 x 8 against 4 x 4 at equal bits: 128, and 576, which K0512-D64 has too.
        add("grid8-K0004", SHORT, num_embeddings=4)
        add("grid4-K0256", SHORT, num_embeddings=256, downsampling=8)
        add("grid4-stages", SHORT, **FOUR)
        # As the stored runs on MNIST, of which none has its geometry measured.
        add("mnist-K0256", 468, studies.MNIST, num_embeddings=256)
        for K in (16, 64, 256, 1024):
            add(f"fashion-K{K:04d}", 468, FASHION, num_embeddings=K)
        for beta in (0.0, 0.25, 4.0):
            name = f"fashion-b{beta:g}"
            add(name, 234, FASHION, num_embeddings=64, commitment_cost=beta)
        add("fashion-short-K0256", 234, FASHION, num_embeddings=256)
    return found


def codebook(data: str, config: VQVAEConfig, steps: int, seed: int) -> Parts:
    """Train a model; measure error, use, likelihood, and the codes' geometry."""
    train, test = studies.data(data)
    trainer = studies.autoencoder(config, steps, data, WINDOW)
    model, found = trainer.model, describe(trainer, BatchLoader(test, 500))
    numbers, history, spread = found["numbers"], found["history"], train.variance()
    # As Sonnet computes them: a running mean over the batches that trained the model,
    # and the perplexity of each batch alone (here of the trained model).
    history["normalized MSE"] = [loss / spread for loss in history["recon_loss"]]
    codes = in_parts(model.encode, train.floats(slice(100 * 32)))
    numbers |= {
        "normalized MSE": normalized_mse(numbers["MSE"], test.variance()),
        "train variance": spread,
        "codes per image": codes[0].numel(),
        **likelihood(model, data),
    }
    if config.quantizer == "vq":
        batches = [usage_counts(z, config.num_embeddings) for z in codes.split(32)]
        even = statistics.fmean(float(perplexity(counts)) for counts in batches)
        of = geometry(model, test.floats(slice(LOOKED_AT)), seed)
        numbers |= {"perplexity of a batch": even, **of}
    return found if seed == SEEDS[0] else found | {"pictures": {}}  # one is shown


def likelihood(model: VQVAE, data: str) -> dict[str, dict[str, float]]:
    """Return bits per pixel and channel of test images, given their codes.

    One for each density, with the scale that suits some training images best.
    """
    train, test = studies.data(data)
    some = train.subset(slice(FITTED_TO))
    fit, x_recon = studies.redrawn(model, some), studies.redrawn(model, test)
    scales = {name: fitted_scale(some.images, fit, name) for name in LOG_CDFS}
    bits = {}
    for name, scale in scales.items():
        pairs = zip(test.images.split(500), x_recon.split(500), strict=True)
        total = sum(float(pixel_bits(*pair, scale, name).sum()) for pair in pairs)
        bits[name] = total / x_recon.numel()
    return {"pixel bits": bits, "scale": scales}


@torch.no_grad()
def geometry(model: VQVAE, x: Tensor, seed: int = 0) -> dict[str, float]:
    """Measure a codebook on images, as chapters 6 and 7 do.

    Args:
        model: a VQ-VAE with one codebook.
        x: images (n, C, H, W) in [0, 1].
        seed: for the exchange of codes.

    Returns:
        ``gap``, the mean squared distance of an entry of z_e from its code's;
        ``share fixed``, (6.2) for the pixels of a code's own cell; how many
        ``directions`` hold 90% of the variance of the codes in use, and how many are
        ``heard``: with these the error is within 5% of that with all; and the ``rank
        correlation`` of two codes' distance with what their exchange changes.
    """
    codes, grids = model.vq.codebook, in_parts(model.encode, x)  # (K, D), (n, h, w)
    x_recon, side = in_parts(model.decode, grids), x.shape[-1] // grids.shape[-1]
    # (n, C, H, W) -> (n h w, C side^2): the pixels of each cell
    cells = F.unfold(x_recon, side, stride=side).transpose(1, 2).flatten(0, 1)
    counts, sums = code_sums(cells, grids.flatten(), len(codes))
    means = sums / counts.clamp(min=1)[:, None]
    within = (cells - means[grids.flatten()]).square().sum()
    total = (cells - cells.mean(0)).square().sum().clamp(min=1e-9)  # if all are alike

    used = counts > 0
    center, live = codes[used].mean(0), codes[used]
    _, lengths, directions = torch.linalg.svd(live - center, full_matrices=False)
    held = lengths.square().cumsum(0) / lengths.square().sum()

    def error(m: int) -> float:
        kept = center + (codes - center) @ directions[:m].T @ directions[:m]
        return mse(x, in_parts(lambda z: model.decoder(kept[z].movedim(-1, 1)), grids))

    every, limit = range(1, len(directions) + 1), 1.05 * error(len(directions))
    heard = 1 + bisect.bisect_left(every, True, key=lambda m: error(m) <= limit)

    # Each code is exchanged for one of its neighbors, all ranks alike in their log.
    g, (n, h, w) = torch.Generator().manual_seed(seed), grids.shape
    at = tuple(torch.randint(size, (SWAPS,), generator=g) for size in (n, h, w))
    rank = len(live) ** torch.rand(SWAPS, generator=g)
    distances, old = torch.cdist(live, live), (used.cumsum(0) - 1)[grids[at]]
    order = distances.argsort(1)  # the code itself comes first
    new = order[old, rank.long().clamp(max=len(live) - 1)]
    swapped = grids[at[0]]
    swapped[torch.arange(SWAPS), at[1], at[2]] = used.nonzero().flatten()[new]
    change = (in_parts(model.decode, swapped) - x_recon[at[0]]).square().sum((1, 2, 3))
    ranks = torch.stack([distances[old, new], change]).argsort(1).argsort(1).float()
    return {
        "gap": mse(model.vq.lookup(grids), in_parts(model.encoder, x)),
        "share fixed": float(1 - within / total),
        "directions": 1 + int((held < 0.9).sum()),
        "heard": heard,
        "rank correlation": float(torch.corrcoef(ranks)[0, 1]),
    }


def prior(
    data: str, config: VQVAEConfig, prior: PriorConfig, steps: Steps, seed: int
) -> Parts:
    """Price the codes of a model under a prior that may know the class; and draw."""
    test, (judge, _, _) = studies.data(data)[1], studies.classifier(data)
    model = studies.autoencoder(config, steps["model"], data, WINDOW).model
    net = studies.trained(PixelCNN(prior), prior, model, steps, data)
    codes = collect_indices(model, BatchLoader(test, 500))
    wanted = torch.arange(DRAWN) % 10 if prior.num_classes else None
    _, real = studies.halves(data)
    grids = {
        "samples": net.model.sample(DRAWN, *codes.shape[1:], wanted, seed=seed),
        "independent codes": studies.independent(codes, seed),
        "reconstructions": codes[real],
    }
    drawn = {name: in_parts(model.decode, z) for name, z in grids.items()}
    numbers = {**studies.prices(net, model, data), **studies.scores(drawn, data)}
    found = {name: quality.classify(judge, x)[1] for name, x in drawn.items()}
    right = found["reconstructions"] == test.labels[real]
    numbers["reconstructions recognized"] = studies.share(right)
    if wanted is not None:
        right = found["samples"] == wanted
        by_class = [studies.share(right[wanted == label]) for label in range(10)]
        numbers |= {"recognized": studies.share(right), "by class": by_class}
    shown = {"samples": 40, "independent codes": 10}
    return studies.parts(numbers, {name: drawn[name][:n] for name, n in shown.items()})
