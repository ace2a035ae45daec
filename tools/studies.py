"""The experiments of chapters 6 and 7: each trains several models and returns one stored study.

tools/runs.py calls them. Each is one seed; the real MNIST is needed, and some minutes of one core.
"""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vqvae_lib import (
    VAE,
    VQVAE,
    AutoregressiveVAE,
    BatchLoader,
    ImageDataset,
    LatentPrior,
    PixelCNN,
    PriorConfig,
    Trainer,
    VAEConfig,
    VQVAEConfig,
    binarised,
    choose_codes,
    collect_indices,
    create_code_loader,
    create_dataloader,
    load_images,
    load_or_train,
    rate,
    usage_counts,
)
from vqvae_lib.judge import (
    Classifier,
    classify,
    frechet_distance,
    nearest_images,
    precision_recall,
    sharpness,
    train_classifier,
)
from vqvae_lib.stored import StoredStudy, provenance

SEEDS = (0, 1, 2)
SIZES = (16, 32, 64, 8, 128)  # of the codebook, for bits under a learned prior
CLASS_SIZE = 32  # codes of the model whose class-conditional prior is judged
VARIANCES = (0.02, 0.006, 0.06)  # of the VAE's likelihood: each buys another rate
LONGER_SIZES = (16, 32)  # whose priors are also trained twice as long
CHOSEN = [0.5, 1.0]  # prices at which codes are chosen, see ``best``
BEST_SIZE = 16  # whose model is trained twice as long too, and its prior four times, within 20 minutes of two cores
STEPS = {
    "model": 1404, "prior": 1874, "longer": 3748, "classes": 3748, "longer model": 2808, "longest": 7496,
    "collapse": 700, "head start": 400,
}  # fmt: skip
FIRST = ("the decoder", "neither", "the latent")  # who learns first, in the study of collapse
FREE = 0.1  # weight of the KL while the latent learns first
DRAWN = 2000  # images of each sample that is judged
SHOWN = 32


@functools.cache
def data() -> tuple[ImageDataset, ImageDataset]:
    """The real MNIST, both parts."""
    return load_images("mnist", stand_in=False), load_images("mnist", train=False, stand_in=False)


@functools.cache
def halves() -> tuple[Tensor, Tensor]:
    """Places of test images: those that all that is drawn is compared with, and as many others, which are redrawn.

    In random order, since the test set's second half comes from other writers than its first. Redrawn images are others
    than those they are compared with: what is paired is nearer than any sample can be.
    """
    order = torch.randperm(len(data()[1]), generator=torch.Generator().manual_seed(0))
    return order[:DRAWN], order[DRAWN : 2 * DRAWN]


@functools.cache
def judge() -> tuple[Classifier, float, Tensor, float]:
    """The classifier, its share of right answers on the test set, features of real images, and the noise floor."""
    train, test = data()
    model = train_classifier(train)
    features, found = classify(model, test.floats())
    real, others = (features[places] for places in halves())
    return model, float((found == test.labels).float().mean()), real, frechet_distance(real, others)


def judged(images: Tensor, what: str) -> dict[str, float]:
    """What the judge finds of drawn images (2000, 1, 28, 28), each number named after what was drawn."""
    model, _, real, _ = judge()
    drawn, _ = classify(model, images)
    precision, recall = precision_recall(real, drawn)
    return {
        f"{what} distance": frechet_distance(real, drawn),
        f"{what} precision": precision,
        f"{what} recall": recall,
        f"{what} sharpness": sharpness(images),
    }


def finished(name: str, settings: dict[str, Any], start: float, **parts: Any) -> StoredStudy:
    """Put a study together; where pictures were judged, with what the judge is worth."""
    precision = "auto"
    if parts["pictures"]:
        precision += "; judge float32"
        _, accuracy, _, floor = judge()
        parts["numbers"] |= {
            "judge accuracy": accuracy,
            "floor distance": floor,
            "data sharpness": sharpness(data()[1].floats(halves()[1])),
        }
    origin = provenance(*data(), time.perf_counter() - start, precision)
    return StoredStudy(name=name, settings=settings, provenance=origin, **parts)


def vqvae(size: int, seed: int, steps: str = "model") -> VQVAE:
    """A trained model with ``size`` codes; studies of one size and seed share it."""
    config = VQVAEConfig(num_embeddings=size, seed=seed, device="cpu")
    trainer = load_or_train(config, create_dataloader(config, dataset=data()[0]), steps=STEPS[steps])
    return trainer.model.eval()


@torch.no_grad()
def in_parts(function: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """Apply a function to 500 inputs at a time."""
    return torch.cat([function(part) for part in inputs.split(500)])


def fitted_prior(config: PriorConfig, model: VQVAE, steps: str) -> Trainer:
    """A prior that was trained on the codes that a model makes of the training images."""
    trainer = Trainer(PixelCNN(config), config)
    trainer.fit(create_code_loader(config, model, data()[0]), steps=STEPS[steps])
    return trainer


def prices(trainer: Trainer, model: VQVAE) -> dict[str, float]:
    """Bits an image under a learned prior: of all test images, and of some that it was trained on."""
    train, test = data()
    parts = {"prior bits": test, "prior bits, training images": train.subset(slice(0, 2000))}
    return {
        name: trainer.evaluate(create_code_loader(trainer.config, model, part, train=False))["bits_per_image"]
        for name, part in parts.items()
    }


def prior(size: int, seed: int) -> StoredStudy:
    """Bits of an image's codes under no prior, one table, a table a position, and a learned prior; samples of two."""
    start, test = time.perf_counter(), data()[1]
    model = vqvae(size, seed)
    indices = collect_indices(model, BatchLoader(test, 500))
    x_recon = in_parts(model.decode, indices)
    errors = (x_recon - test.floats()).square().mean(dim=(1, 2, 3))
    config = PriorConfig(num_embeddings=size, layers=6, seed=seed, device="cpu")
    trainer = fitted_prior(config, model, "prior")
    bits = rate(usage_counts(indices, size), 49)
    pictures = in_parts(model.decode, trainer.model.sample(DRAWN, 7, 7, seed=seed))
    # What the tables a position draw: the code of each position from an image of its own.
    generator = torch.Generator().manual_seed(seed)
    donors = torch.randint(len(indices), (DRAWN, 7, 7), generator=generator)
    independent = in_parts(model.decode, indices[donors, torch.arange(7)[:, None], torch.arange(7)])
    return finished(
        f"prior-K{size:04d}-seed{seed}",
        settings("prior", K=size, seed=seed, prior=config),
        start,
        numbers={
            "MSE": float(errors.mean()),
            "nominal bits": bits.nominal,
            "entropy bits": bits.entropy,
            "position bits": sum(rate(usage_counts(codes, size), 1).entropy for codes in indices.flatten(1).T),
            **prices(trainer, model),
            **judged(x_recon[halves()[1]], "reconstructions"),
            **judged(pictures, "samples"),
            **judged(independent, "independent codes"),
        },
        history={name: trainer.history[name] for name in ("step", "bits_per_image")},
        pictures={"samples": pictures[:SHOWN], "independent codes": independent[:SHOWN]},
    )


def longer(size: int, seed: int) -> StoredStudy:
    """The same codes as in ``prior`` under a prior that was trained twice as long: bits alone, no samples."""
    start, model = time.perf_counter(), vqvae(size, seed)
    config = PriorConfig(num_embeddings=size, layers=6, seed=seed, device="cpu")
    return bits_alone("longer", fitted_prior(config, model, "longer"), model, start)


def best(size: int, seed: int) -> StoredStudy:
    """What more training can do: the model twice as long, its prior four times, with dropout against learning by heart.

    And what the encoder can do: codes chosen for their price too. Bits alone, no samples.
    """
    start, test = time.perf_counter(), data()[1]
    model = vqvae(size, seed, "longer model")
    config = PriorConfig(num_embeddings=size, layers=6, dropout=0.1, seed=seed, device="cpu")
    trainer = fitted_prior(config, model, "longest")
    learned = trainer.model.eval()
    # Prices are shares of the squared distance that a nearest code has on average.
    some = test.floats(halves()[0])
    squares = in_parts(lambda x: (model.encoder(x) - model.vq.lookup(model.encode(x))).square().sum(1), some)
    distance = float(squares.mean())
    chosen = {"shares": CHOSEN, "MSE chosen": [], "bits chosen": [], "changed": []}
    nearest = collect_indices(model, BatchLoader(test, 500))
    for share in CHOSEN:
        codes = in_parts(lambda x, price=share * distance: choose_codes(model, learned, x, price), test.floats())
        chosen["MSE chosen"].append(float((in_parts(model.decode, codes) - test.floats()).square().mean()))
        nats = in_parts(lambda part: learned.nats(part).sum(dim=(1, 2)), codes)
        chosen["bits chosen"].append(float(nats.mean()) / math.log(2))
        chosen["changed"].append(float((codes != nearest).float().mean()))
    return bits_alone("best", trainer, model, start, distance=distance, **chosen)


def bits_alone(kind: str, trainer: Trainer, model: VQVAE, start: float, **numbers: Any) -> StoredStudy:
    """Error of a model and bits of its codes under a prior, nothing drawn."""
    test, config = data()[1], trainer.config
    x_recon = in_parts(model.decode, collect_indices(model, BatchLoader(test, 500)))
    return finished(
        f"{kind}-K{config.num_embeddings:04d}-seed{config.seed}",
        settings(kind, K=config.num_embeddings, seed=config.seed, prior=config),
        start,
        numbers={"MSE": float((x_recon - test.floats()).square().mean()), **prices(trainer, model), **numbers},
        history={name: trainer.history[name] for name in ("step", "bits_per_image")},
        pictures={},
    )


def classes(seed: int) -> StoredStudy:
    """Samples of a prior that is told the class: are they recognised, are they diverse, are they copies?"""
    start, (train, test) = time.perf_counter(), data()
    model, size = vqvae(CLASS_SIZE, seed), CLASS_SIZE
    config = PriorConfig(num_embeddings=size, num_classes=10, layers=6, seed=seed, device="cpu")
    trainer = fitted_prior(config, model, "classes")
    learned = trainer.model
    wanted = torch.arange(DRAWN) % 10
    numbers = prices(trainer, model)
    pictures = {}
    for temperature in (0.6, 0.8, 1.0):
        drawn = in_parts(model.decode, learned.sample(DRAWN, 7, 7, wanted, temperature=temperature, seed=seed))
        found = classify(judge()[0], drawn)[1]
        right = (found == wanted).float()
        what = f"T = {temperature:g}"
        numbers |= {f"{what} recognised": float(right.mean()), **judged(drawn, what)}
        pictures[what] = drawn[:40]
        if temperature == 1:
            numbers["recognised by class"] = [float(right[wanted == digit].mean()) for digit in range(10)]
            # The first mistakes: asked for, and taken for.
            wrong = (right == 0).nonzero().flatten()[:10]
            pictures |= {"mistaken": drawn[wrong]} if len(wrong) else {}
            numbers["mistaken"] = [[int(wanted[i]), int(found[i])] for i in wrong]
            numbers["nearest training images"] = nearest_images(drawn[:10], train)[0].tolist()
            # Between what do draws lie? Test images, redrawn by the model, are no copies; redrawn training images are.
            fresh, copies = (
                in_parts(model.decode, collect_indices(model, BatchLoader(part, 500)))
                for part in (test.subset(halves()[1][:500]), train.subset(slice(0, 500)))
            )
            numbers["distance to training images"] = nearest_images(drawn[:500], train)[1].tolist()
            numbers["distance of test images"] = nearest_images(fresh, train)[1].tolist()
            numbers["distance of copies"] = nearest_images(copies, train)[1].tolist()
    # Reconstructions, judged alike: what is lost there, no prior can mend.
    others = test.subset(halves()[1])
    redrawn = in_parts(model.decode, collect_indices(model, BatchLoader(others, 500)))
    numbers["reconstructions recognised"] = float((classify(judge()[0], redrawn)[1] == others.labels).float().mean())
    # Completions: the upper four rows of codes are given, and the class.
    given = torch.zeros(7, 7, dtype=torch.bool)
    given[:4] = True
    codes = collect_indices(model, BatchLoader(test.subset(slice(0, 8)), 8)).repeat_interleave(4, dim=0)
    labels = test.labels[:8].repeat_interleave(4)
    pictures["completions"] = in_parts(model.decode, learned.complete(codes, given, labels, seed=seed))
    # One row after the other: ten grids, decoded after each row of codes, the rest of the grid empty paper.
    grids = learned.sample(10, 7, 7, torch.arange(10), seed=seed).cpu()
    paper = model.encode(torch.zeros(1, 1, 28, 28))
    known = torch.arange(49).view(7, 7)[None] < torch.arange(0, 50, 7)[:, None, None]  # (8, 7, 7), a row more each time
    frames = torch.where(known[:, None], grids, paper)  # (8, 10, 7, 7)
    pictures["rows"] = in_parts(model.decode, frames.flatten(0, 1))
    return finished(
        f"classes-K{size:04d}-seed{seed}",
        settings("classes", K=size, seed=seed, prior=config),
        start,
        numbers=numbers,
        history={name: trainer.history[name] for name in ("step", "bits_per_image")},
        pictures=pictures,
    )


def vae(variance: float, seed: int) -> StoredStudy:
    """The Gaussian in the codebook's place: rate under N(0, I) and under a learned prior, error, samples of both."""
    start, (train, test) = time.perf_counter(), data()
    config = VAEConfig(variance=variance, seed=seed, device="cpu")
    trainer = Trainer(VAE(config), config)
    trainer.fit(BatchLoader(train, 128, shuffle=True, drop_last=True, seed=seed), steps=STEPS["model"])
    model, numbers = trainer.model.eval(), trainer.evaluate(BatchLoader(test, 500))
    mean = in_parts(lambda x: model.decode(model.encode(x).chunk(2, dim=1)[0]), test.floats())
    prior_config = PriorConfig(num_embeddings=8, layers=6, lr=2e-3, seed=seed, device="cpu")
    learned = Trainer(LatentPrior(prior_config, config.latent_dim), prior_config)
    learned.fit(create_code_loader(prior_config, model, train), steps=STEPS["prior"])
    generator = torch.Generator().manual_seed(seed)
    standard = in_parts(model.decode, torch.randn(DRAWN, config.latent_dim, 7, 7, generator=generator))
    pictures = in_parts(model.decode, learned.model.sample(DRAWN, 7, 7, seed=seed))
    return finished(
        f"vae-s{variance:g}-seed{seed}",
        settings("vae", variance=variance, seed=seed, vae=config, prior=prior_config),
        start,
        numbers={
            "MSE": numbers["mse"],
            "MSE at the mean": float((mean - test.floats()).square().mean()),
            "KL bits": numbers["rate"],
            "ELBO": numbers["elbo"],
            "active": numbers["active"],
            "prior bits": learned.evaluate(create_code_loader(prior_config, model, test, train=False))[
                "bits_per_image"
            ],
            **judged(mean[halves()[1]], "reconstructions"),
            **judged(pictures, "samples"),
            **judged(standard, "standard samples"),
        },
        history={name: trainer.history[name] for name in ("step", "mse", "rate")},
        pictures={"reconstructions": mean[:8], "samples": pictures[:SHOWN], "standard samples": standard[:SHOWN]},
    )


def collapse(seed: int) -> StoredStudy:
    """Both bottlenecks under one autoregressive decoder, fed alike; what differs is who learns first.

    A head start, and then all train on alike: the decoder's is without any latent; the latent's is one in which its KL
    has little weight.
    """
    start = time.perf_counter()
    train, test = binarised(data()[0]), binarised(data()[1].subset(slice(0, DRAWN)))
    base = VAEConfig(grid_side=3, num_embeddings=32, batch_size=64, feeding="map", seed=seed, device="cpu")

    def trained(config: VAEConfig, steps: str, weights: dict[str, Any] | None = None) -> Trainer:
        trainer = Trainer(AutoregressiveVAE(config), config)
        trainer.model.load_state_dict(weights or {}, strict=False)
        loader = BatchLoader(train, config.batch_size, shuffle=True, drop_last=True, seed=seed)
        trainer.fit(loader, steps=STEPS[steps])
        return trainer

    def numbers_of(trainer: Trainer) -> dict[str, float]:
        result, (right, swapped) = trainer.evaluate(BatchLoader(test, 500)), swap(trainer.model.eval(), test.tensors[0])
        rate = result["rate"] * math.log(2)  # nats: the KL, or positions x ln K
        return {
            "right": right,
            "swapped": swapped,
            "rate": rate,
            "active": result.get("active", result.get("perplexity", 0.0)),
        }

    numbers: dict[str, Any] = {}
    history: dict[str, list[float]] = {}
    blind_config = replace(base, feeding="none")
    blind = trained(blind_config, "head start")
    alone = {name: value for name, value in blind.model.state_dict().items() if name.startswith("decoder.")}
    numbers["head start"] = blind.evaluate(BatchLoader(test, 500))["distortion"]
    # Trained on as long as the others, so that only the latent makes a difference.
    blind = trained(blind_config, "collapse", alone)
    numbers["blind decoder"] = blind.evaluate(BatchLoader(test, 500))["distortion"]
    for first, bottleneck in itertools.product(FIRST, ("gaussian", "vq")):
        if (first, bottleneck) == ("the latent", "vq"):
            continue  # codes have no KL to weigh: the same run as that of neither
        what, config = f"{bottleneck}, {first}", replace(base, bottleneck=bottleneck)
        weights = alone
        if first != "the decoder":
            head = trained(replace(config, kl_weight=FREE) if first == "the latent" else config, "head start")
            weights = head.model.state_dict()
            numbers[f"{what}, head start"] = numbers_of(head)
        trainer = trained(config, "collapse", weights)
        numbers[what] = numbers_of(trainer)
        history[what], history["step"] = trainer.history["distortion"], trainer.history["step"]
    return finished(
        f"collapse-seed{seed}",
        settings("collapse", seed=seed, vae=base, free=FREE),
        start,
        numbers=numbers,
        history=history,
        pictures={},
    )


@torch.no_grad()
def swap(model: AutoregressiveVAE, images: Tensor) -> tuple[float, float]:
    """Nats an image, given its own latent and given the latent of another image."""
    right, swapped = [], []
    torch.manual_seed(0)
    for x in images.split(500):
        z = model.latent(x)
        right.append(model.distortion(x, z)["distortion"])
        swapped.append(model.distortion(x, z.roll(1, dims=0))["distortion"])
    return float(torch.cat(right).mean()), float(torch.cat(swapped).mean())


def settings(kind: str, **choices: Any) -> dict[str, Any]:
    """Everything that a study's result depends on, as plain values."""
    steps = {name: STEPS[name] for name in USED[kind]}
    plain = {
        name: {key: value for key, value in vars(choice).items() if key != "device"}
        if hasattr(choice, "lr")
        else choice
        for name, choice in choices.items()
    }
    return {**plain, "steps": steps}


USED = {
    "prior": ("model", "prior"),
    "longer": ("model", "longer"),
    "best": ("longer model", "longest"),
    "classes": ("model", "classes"),
    "vae": ("model", "prior"),
    "collapse": ("collapse", "head start"),
}


def studies() -> dict[str, Callable[[], StoredStudy]]:
    """Name -> what makes it; all of one seed before the next, so that each seed is a whole experiment early."""
    found: dict[str, Callable[[], StoredStudy]] = {}
    for seed in SEEDS:
        for size, variance in itertools.zip_longest(SIZES, VARIANCES):
            found[f"prior-K{size:04d}-seed{seed}"] = functools.partial(prior, size, seed)
            if size in LONGER_SIZES:
                found[f"longer-K{size:04d}-seed{seed}"] = functools.partial(longer, size, seed)
            if size == BEST_SIZE:
                found[f"best-K{size:04d}-seed{seed}"] = functools.partial(best, size, seed)
            if variance is not None:
                found[f"vae-s{variance:g}-seed{seed}"] = functools.partial(vae, variance, seed)
            if size == CLASS_SIZE:
                found[f"classes-K{size:04d}-seed{seed}"] = functools.partial(classes, seed)
                found[f"collapse-seed{seed}"] = functools.partial(collapse, seed)
    # The first of each kind for every seed before the rest of any.
    first = ("K0016", "K0032", f"s{VARIANCES[0]:g}-", "collapse")
    return dict(sorted(found.items(), key=lambda item: "seed0" not in item[0] and not any(f in item[0] for f in first)))
