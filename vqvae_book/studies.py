"""The experiments of the chapters on the prior and on the VAE: several models each.

Each is one seed, takes minutes on one core, and needs the real MNIST;
`vqvae_book.experiments` performs and stores them.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vqvae_lib._util import seeded
from vqvae_lib.ar_vae import AutoregressiveVAE, LatentPrior
from vqvae_lib.config import TrainConfig, VQVAEConfig
from vqvae_lib.data import BatchLoader, ImageDataset, create_dataloader, load_images
from vqvae_lib.metrics import collect_indices, mse, rate, usage_counts
from vqvae_lib.model import VQVAE
from vqvae_lib.prior import PixelCNN, PriorConfig, create_code_loader
from vqvae_lib.trainer import Trainer
from vqvae_lib.vae import VAE, VAEConfig, reparameterize
from vqvae_lib.vqvae_trainer import VQVAETrainer

from . import sample_quality as quality
from .cache import load_or_train
from .extras import binarized, choose_codes
from .results import STUDIES

SEEDS = (0, 1, 2)
SIZES = (8, 16, 32, 64, 128)  # of the codebook
VARIANCES = (0.006, 0.02, 0.06)  # of the VAE's likelihood: each buys another rate
DRAWN, SHOWN = 2000, 32  # images of each sample: those scored, those stored
TEMPERATURES = (0.6, 0.8, 1.0)
MNIST = "mnist"
CLASSIFIERS = {"cifar10": {"widths": (32, 64, 128), "steps": 3000}}  # harder, so larger

Steps = dict[str, int]  # by model
Parts = dict[str, Any]  # a result's numbers, history and pictures


class Experiment(NamedTuple):
    """An experiment with one seed: its result's folder, settings and maker."""

    folder: Path
    settings: dict[str, Any]
    make: Callable[[], Parts]


def study(make: Callable[..., Parts], **choices: Any) -> Experiment:
    """Return an experiment whose settings are the arguments that ``make`` will get."""
    settings = {
        what: choice.identity() if isinstance(choice, TrainConfig) else choice
        for what, choice in choices.items()
    }
    return Experiment(STUDIES, settings, functools.partial(make, **choices))


def studies() -> dict[str, Experiment]:
    """Return name -> study, all of one seed before the next."""
    found: dict[str, Experiment] = {}

    def add(name: str, make: Callable[..., Parts], **choices: Any) -> None:
        found[f"{name}-seed{seed}"] = study(make, seed=seed, **choices)

    for seed in SEEDS:
        common = {"seed": seed, "device": "cpu"}
        base = PriorConfig(layers=6, **common)
        usual = {"model": 1404, "prior": 1874}
        for K in SIZES:
            config = replace(base, num_embeddings=K)
            add(f"prior-K{K:04d}", prior, K=K, prior=config, steps=usual)
        # Dropout against learning by heart, and codes at two prices.
        config = replace(base, num_embeddings=16, dropout=0.1)
        steps, shares = {"model": 2808, "prior": 7496}, [0.5, 1.0]
        add("best-K0016", best, K=16, prior=config, steps=steps, shares=shares)
        # More steps, and as many with the class: what does each do?
        config, steps = replace(base, num_embeddings=32), usual | {"prior": 3748}
        add("longer-K0032", longer, K=32, prior=config, steps=steps)
        config = replace(config, num_classes=10)
        add("classes-K0032", classes, K=32, prior=config, steps=steps)
        for s2 in VARIANCES:
            config = replace(base, num_embeddings=8, lr=2e-3)
            chosen = {"vae": VAEConfig(variance=s2, **common), "prior": config}
            add(f"vae-s{s2:g}", vae, variance=s2, steps=usual, **chosen)
        chosen = {"grid_side": 3, "num_embeddings": 32, "batch_size": 64}
        config = VAEConfig(conditioning="map", **chosen, **common)
        steps = {"head start": 400, "collapse": 700}
        add("collapse", collapse, vae=config, free=0.1, steps=steps)
    return found


@functools.cache
def data(name: str = MNIST) -> tuple[ImageDataset, ImageDataset]:
    """Return both parts of a real dataset."""
    options = {"stand_in": False}
    return load_images(name, **options), load_images(name, train=False, **options)


@functools.cache
def halves(name: str = MNIST) -> tuple[Tensor, Tensor]:
    """Return indices of test images to compare with, and of as many others to redraw.

    In random order: MNIST's second half comes from other writers. Disjoint: a redrawn
    image is nearer to its original than any sample can be.
    """
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(data(name)[1]), generator=generator)
    return order[:DRAWN], order[DRAWN : 2 * DRAWN]


@functools.cache
def classifier(name: str) -> tuple[quality.Classifier, Tensor, dict[str, float]]:
    """Return a classifier, features of real images, and numbers to compare with."""
    train, test = data(name)
    model = quality.train_classifier(train, **CLASSIFIERS.get(name, {}))
    features, found = quality.classify(model, test.floats())
    real, others = (features[places] for places in halves(name))
    numbers = {
        "classifier accuracy": share(found == test.labels),
        "floor distance": quality.frechet_distance(real, others),
        "data sharpness": quality.sharpness(test.floats(halves(name)[1])),
    }
    return model, real, numbers


def scores(drawn: dict[str, Tensor], name: str = MNIST) -> dict[str, float]:
    """Score drawn images (DRAWN, C, H, W), each number named after what was drawn."""
    model, real, numbers = classifier(name)
    for what, images in drawn.items():
        features, _ = quality.classify(model, images)
        precision, recall = quality.precision_recall(real, features)
        numbers = numbers | {
            f"{what} distance": quality.frechet_distance(real, features),
            f"{what} precision": precision,
            f"{what} recall": recall,
            f"{what} sharpness": quality.sharpness(images),
        }
    return numbers


def share(right: Tensor) -> float:
    """Return the share of values that are true."""
    return float(right.float().mean())


@torch.no_grad()
def in_parts(function: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """Apply a function to 500 inputs at a time."""
    return torch.cat([function(part) for part in inputs.split(500)])


def redrawn(model: VQVAE, images: ImageDataset) -> Tensor:
    """Return a model's reconstructions of images."""
    return in_parts(lambda x: model.decode(model.encode(x)), images.floats())


def autoencoder(
    config: VQVAEConfig, steps: int, name: str = MNIST, window: int | None = None
) -> VQVAETrainer:
    """Return the trainer of a trained VQ-VAE, cached if possible."""
    loader = create_dataloader(config, dataset=data(name)[0])
    trainer = load_or_train(config, loader, steps=steps, window=window)
    trainer.model.eval()
    return trainer


def fitted(prior: PriorConfig, K: int, steps: Steps) -> tuple[VQVAE, Trainer]:
    """Return a VQ-VAE, cached if possible, and a prior fitted to its codes."""
    config = VQVAEConfig(num_embeddings=K, seed=prior.seed, device="cpu")
    model = autoencoder(config, steps["model"]).model
    return model, trained(PixelCNN(prior), prior, model, steps)


def trained(
    net: PixelCNN, config: PriorConfig, model: Any, steps: Steps, name: str = MNIST
) -> Trainer:
    """Fit a prior to a model's codes or latents of the training images."""
    trainer = Trainer(net, config)
    loader = create_code_loader(config, model, data(name)[0])
    trainer.fit(loader, steps=steps["prior"])
    trainer.model.eval()
    return trainer


def prices(trainer: Trainer, model: Any, name: str = MNIST) -> dict[str, float]:
    """Return bits of all test images, and of some that the prior was trained on."""
    train, test = data(name)
    parts = {"prior bits": test}
    parts["prior bits, training images"] = train.subset(slice(2000))
    found = {}
    for what, images in parts.items():
        loader = create_code_loader(trainer.config, model, images, train=False)
        found[what] = trainer.evaluate(loader)["bits_per_image"]
    return found


def independent(codes: Tensor, seed: int) -> Tensor:
    """Draw each position's code from some image's: (N, h, w) -> (DRAWN, h, w)."""
    count, height, width = codes.shape
    generator = torch.Generator().manual_seed(seed)
    donors = torch.randint(count, (DRAWN, height, width), generator=generator)
    return codes[donors, torch.arange(height)[:, None], torch.arange(width)]


def parts(numbers: dict, pictures: dict | None = None, **history: list) -> Parts:
    """Return the parts of a result."""
    return {"numbers": numbers, "pictures": pictures or {}, "history": history}


def prior(K: int, seed: int, steps: Steps, prior: PriorConfig) -> Parts:
    """Price codes with no prior, one table, a table per position, a learned prior."""
    test = data()[1]
    model, trainer = fitted(prior, K, steps)
    codes = collect_indices(model, BatchLoader(test, 500))
    x_recon = in_parts(model.decode, codes)
    bits = rate(usage_counts(codes, K), 49)
    tables = [rate(usage_counts(at, K), 1).entropy for at in codes.flatten(1).T]
    sampled = trainer.model.sample(DRAWN, 7, 7, seed=seed)
    pictures = {"samples": sampled, "independent codes": independent(codes, seed)}
    pictures = {name: in_parts(model.decode, z) for name, z in pictures.items()}
    numbers = {
        "MSE": mse(test.floats(), x_recon),
        "nominal bits": bits.nominal,
        "entropy bits": bits.entropy,
        "position bits": sum(tables),
        **prices(trainer, model),
        **scores({"reconstructions": x_recon[halves()[1]], **pictures}),
    }
    return parts(numbers, {name: images[:SHOWN] for name, images in pictures.items()})


def longer(K: int, seed: int, steps: Steps, prior: PriorConfig) -> Parts:
    """Price and sample codes under a prior that trained for longer."""
    model, trainer = fitted(prior, K, steps)
    samples = in_parts(model.decode, trainer.model.sample(DRAWN, 7, 7, seed=seed))
    numbers = {
        "MSE": mse(data()[1].floats(), redrawn(model, data()[1])),
        **prices(trainer, model),
        **scores({"samples": samples}),
    }
    return parts(numbers)


def best(K: int, seed: int, steps: Steps, prior: PriorConfig, shares: list) -> Parts:
    """Try more training, and an encoder that knows the price of each code.

    ``shares`` are prices of a nat, in mean squared distances from the nearest code.
    """
    x, (model, trainer) = data()[1].floats(), fitted(prior, K, steps)

    def squares(x: Tensor) -> Tensor:
        return (model.encoder(x) - model.vq.lookup(model.encode(x))).square().sum(1)

    distance = float(in_parts(squares, x[halves()[0]]).mean())
    nearest, errors, costs, changed = in_parts(model.encode, x), [], [], []
    for part in shares:
        price = part * distance
        choose = functools.partial(choose_codes, model, trainer.model, price=price)
        codes = in_parts(choose, x)
        nats = in_parts(lambda z: trainer.model.nats(z).sum(dim=(1, 2)), codes)
        errors.append(mse(x, in_parts(model.decode, codes)))
        costs.append(float(nats.mean()) / math.log(2))
        changed.append(share(codes != nearest))
    numbers = {"MSE": mse(x, in_parts(model.decode, nearest)), **prices(trainer, model)}
    chosen = {"MSE chosen": errors, "bits chosen": costs, "changed": changed}
    return parts({**numbers, **chosen})


def classes(K: int, seed: int, steps: Steps, prior: PriorConfig) -> Parts:
    """Sample from a prior that is told the class: recognized, diverse, or copies?"""
    (train, test), judge = data(), classifier(MNIST)[0]
    model, trainer = fitted(prior, K, steps)
    learned, wanted = trainer.model, torch.arange(DRAWN) % 10
    drawn, numbers = {}, prices(trainer, model)
    for temperature in TEMPERATURES:
        options = {"temperature": temperature, "seed": seed}
        z, name = learned.sample(DRAWN, 7, 7, wanted, **options), f"T = {temperature:g}"
        images = drawn[name] = in_parts(model.decode, z)
        found = quality.classify(judge, images)[1]
        right = found == wanted
        numbers[f"{name} recognized"] = share(right)
    # From here on of the last temperature, which is 1.
    wrong = (~right).nonzero().flatten()[:10]
    nearest = quality.nearest_images(images[:10], train)[0]
    others = test.subset(halves()[1])
    recognized = quality.classify(judge, redrawn(model, others))[1] == others.labels
    numbers |= {
        **scores(drawn),
        "recognized by class": [share(right[wanted == digit]) for digit in range(10)],
        "reconstructions recognized": share(recognized),
        "mistaken": [[int(wanted[i]), int(found[i])] for i in wrong],  # asked, and seen
        "nearest training images": nearest.tolist(),
    }
    # Redrawn test images are no copies of training images; redrawn training images are.
    for name, shown in {
        "distance to training images": images[:500],
        "distance of test images": redrawn(model, others.subset(slice(500))),
        "distance of copies": redrawn(model, train.subset(slice(500))),
    }.items():
        numbers[name] = quality.nearest_images(shown, train)[1].tolist()
    pictures = {name: shown[:40] for name, shown in drawn.items()}
    pictures |= {"mistaken": images[wrong]} if len(wrong) else {}
    # Completions: the upper four rows of codes are given, and the class.
    given = (torch.arange(7) < 4)[:, None].expand(7, 7)
    z = model.encode(test.floats(slice(8))).repeat_interleave(4, dim=0)
    labels = test.labels[:8].repeat_interleave(4)
    completed = learned.complete(z, given, labels, seed=seed)
    # Ten grids, decoded after each row of codes; the rest of the grid is empty paper.
    z = learned.sample(10, 7, 7, torch.arange(10), seed=seed)
    known = torch.arange(7)[:, None] < torch.arange(8)[:, None, None, None]
    frames = torch.where(known, z, model.encode(torch.zeros(1, 1, 28, 28)))
    shown = {"completions": completed, "rows": frames.flatten(0, 1)}  # (8, 10, 7, 7)
    pictures |= {name: in_parts(model.decode, z) for name, z in shown.items()}
    return parts(numbers, pictures)


def vae(
    variance: float, seed: int, steps: Steps, vae: VAEConfig, prior: PriorConfig
) -> Parts:
    """Price and draw Gaussian latents under N(0, I) and under a learned prior."""
    train, test = data()
    options = {"shuffle": True, "drop_last": True, "seed": seed}
    trainer = Trainer(VAE(vae), vae)
    trainer.fit(BatchLoader(train, vae.batch_size, **options), steps=steps["model"])
    model, found = trainer.model.eval(), trainer.evaluate(BatchLoader(test, 500))
    learned = trained(LatentPrior(prior, vae.latent_dim), prior, model, steps)
    mean, log_variance = in_parts(model.encode, test.floats()).chunk(2, dim=1)
    with seeded(seed):
        drawn = reparameterize(mean, log_variance)
    generator = torch.Generator().manual_seed(seed)
    latents = {
        "reconstructions": drawn,
        "means": mean,
        "samples": learned.model.sample(DRAWN, 7, 7, seed=seed),
        "standard samples": torch.randn(
            DRAWN, vae.latent_dim, 7, 7, generator=generator
        ),
    }
    pictures = {name: in_parts(model.decode, z) for name, z in latents.items()}
    numbers = {
        "MSE": found["mse"],
        "MSE at the mean": mse(test.floats(), pictures["means"]),
        "KL bits": found["rate"],
        "active": found["active"],
        "prior bits": prices(learned, model)["prior bits"],
    }
    for name in ("reconstructions", "means"):
        pictures[name] = pictures[name][halves()[1]]
    shown = {name: pictures[name][:SHOWN] for name in ("samples", "standard samples")}
    return parts({**numbers, **scores(pictures)}, shown)


def collapse(seed: int, steps: Steps, vae: VAEConfig, free: float) -> Parts:
    """Train both bottlenecks under one autoregressive decoder; which part learns first?

    The decoder gets its head start without any latent, the latent under a KL of small
    weight, ``free``. After that, all are trained alike.
    """
    train = binarized(data()[0])
    test = binarized(data()[1].subset(slice(DRAWN)))
    batches, history = BatchLoader(test, 500), {}

    def train_on(config: VAEConfig, phase: str, weights: dict | None = None) -> Trainer:
        trainer = Trainer(AutoregressiveVAE(config), config)
        trainer.model.load_state_dict(weights or {}, strict=False)
        options = {"shuffle": True, "drop_last": True, "seed": seed}
        loader = BatchLoader(train, config.batch_size, **options)
        trainer.fit(loader, steps=steps[phase])
        return trainer

    def numbers_of(trainer: Trainer) -> dict[str, float]:
        found, names = trainer.evaluate(batches), ("active", "perplexity")
        right, swapped = swap(trainer.model.eval(), test.tensors[0])
        kept = {name: found[name] for name in names if name in found}
        nats = found["rate"] * math.log(2)  # the KL, or positions x ln K
        return {"right": right, "swapped": swapped, "rate": nats, **kept}

    blind = replace(vae, conditioning="none")
    alone = train_on(blind, "head start").model.state_dict()
    alone = {name: part for name, part in alone.items() if name.startswith("decoder.")}
    # Trained on as long as the others, so that only the latent makes a difference.
    ended = train_on(blind, "collapse", alone).evaluate(batches)
    numbers: dict[str, Any] = {"blind decoder": ended["distortion"]}
    firsts = ("the decoder", "neither", "the latent")
    for first, bottleneck in itertools.product(firsts, ("gaussian", "vq")):
        if (first, bottleneck) == ("the latent", "vq"):
            continue  # codes have no KL to weigh: the same run as that of neither
        name, config = f"{bottleneck}, {first}", replace(vae, bottleneck=bottleneck)
        weights = alone
        if first != "the decoder":
            weight = free if first == "the latent" else config.kl_weight
            head = train_on(replace(config, kl_weight=weight), "head start")
            weights = head.model.state_dict()
            numbers[f"{name}, head start"] = numbers_of(head)
        trainer = train_on(config, "collapse", weights)
        numbers[name] = numbers_of(trainer)
        history["step"] = trainer.history["step"]
        history[name] = trainer.history["distortion"]
    return parts(numbers, **history)


@torch.no_grad()
def swap(model: AutoregressiveVAE, images: Tensor) -> tuple[float, float]:
    """Return nats per image, given its own latent, and given that of another image."""
    right, swapped = [], []
    with seeded(0):
        for x in images.split(500):
            z = model.draw_latent(x)
            right.append(model.distortion(x, z)["distortion"])
            swapped.append(model.distortion(x, z.roll(1, dims=0))["distortion"])
    return float(torch.cat(right).mean()), float(torch.cat(swapped).mean())
