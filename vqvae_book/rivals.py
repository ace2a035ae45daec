"""The experiments of chapter 10: quantizers at equal nominal bits, each at its best.

All share encoder, decoder, schedule and number of steps. A search of six settings on
training images that are held out chooses the settings of each.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from vqvae_lib.config import VQVAEConfig
from vqvae_lib.data import BatchLoader, ImageDataset, create_dataloader
from vqvae_lib.metrics import collect_indices, rate, usage_counts
from vqvae_lib.model import VQVAE
from vqvae_lib.prior import PixelCNN, PriorConfig, create_code_loader
from vqvae_lib.trainer import Trainer, TrainingError
from vqvae_lib.transformer import TransformerConfig, TransformerPrior
from vqvae_lib.vqvae_trainer import VQVAETrainer

from . import studies
from .results import Result, stored_studies
from .studies import DRAWN, SEEDS, SHOWN, Experiment, Parts, Steps, in_parts

BITS = (6, 10, 14)  # per position, nominal; of 14 no prior is fitted
SEARCHED = (6, 10)  # others take the settings of 10
SEARCH_SEED = 100
RATES = (5e-3, 1e-2, 2e-2)
STEADY = 4  # settings, those of the first two rates: training can fail with the third
LEVELS = {  # of FSQ: few channels or few levels
    6: ((8, 8), (4, 4, 4)),
    10: ((8, 8, 4, 4), (4,) * 5),
    14: ((8, 8, 8, 8, 4), (4,) * 7),
}
BETAS = tuple({"commitment_cost": beta} for beta in (0.25, 1.0))
GRADIENT = {"codebook_update": "gradient"}
# Method -> fields, and the two values of what its search tries beside the rate.
METHODS: dict[str, tuple[dict[str, Any], tuple[dict[str, Any], ...]]] = {
    "vq": ({}, BETAS),
    "rotation": ({"estimator": "rotation"}, BETAS),
    "simvq": ({"quantizer": "simvq", **GRADIENT}, BETAS),
    "fsq": ({"quantizer": "fsq"}, ({"levels": 0}, {"levels": 1})),
    "lfq": ({"quantizer": "lfq"}, tuple({"entropy_cost": c} for c in (0.02, 0.1))),
    "residual": (
        {"quantizer": "residual", "num_codebooks": 2},
        ({"shared_codebook": False}, {"shared_codebook": True}),
    ),
    "grouped": ({"quantizer": "grouped", "num_codebooks": 2}, BETAS),
}
# Prior -> learning rates; and method -> seeds of the codes that they learn.
PRIORS = {"PixelCNN": (2e-3, 4e-3, 8e-3), "transformer": (1e-3, 2e-3, 4e-3)}
LEARNED = {"vq": SEEDS, "fsq": SEEDS[:1], "residual": SEEDS[:1]}


def settings(method: str, bits: int) -> list[dict[str, Any]]:
    """Return the fields of each of a search's six settings, at 2^bits codes."""
    fields, options = METHODS[method]
    found = []
    for lr, option in itertools.product(RATES, options):
        chosen = {"lr": lr, **fields, **option}
        chosen["num_embeddings"] = 2 ** (bits // chosen.get("num_codebooks", 1))
        if method == "fsq":
            chosen["levels"] = list(LEVELS[bits][option["levels"]])
            chosen["embedding_dim"] = len(chosen["levels"])
        if method == "lfq":
            chosen["embedding_dim"] = bits
        found.append(chosen)
    return found


def searched(bits: int) -> dict[str, list[float]]:
    """Return method -> held-out errors of its six settings, of finished searches."""
    done = stored_studies("rival-search-")
    done = [study for study in done if study.settings["bits"] == bits]
    return {study.settings["method"]: study.numbers["MSE of each"] for study in done}


def best(method: str, bits: int) -> dict[str, Any] | None:
    """Return the steady fields with the lowest held-out error; None without any."""
    errors = searched(bits if bits in SEARCHED else max(SEARCHED)).get(method)
    return errors and settings(method, bits)[errors.index(min(errors[:STEADY]))]


def stored(method: str, bits: Iterable[int] = BITS) -> dict[int, list[Result]]:
    """Return bits -> results, where those of at least two seeds are stored."""
    found = {b: stored_studies(f"rival-{method}-b{b:02d}-seed") for b in bits}
    return {b: runs for b, runs in found.items() if len(runs) > 1}


def rivals() -> dict[str, Experiment]:
    """Return name -> experiment: searches, and what finished searches lead to."""
    found: dict[str, Experiment] = {}

    def add(name: str, make: Callable[..., Parts], **choices: Any) -> None:
        found[f"rival-{name}-seed{choices['seed']}"] = studies.study(make, **choices)

    for bits, method in itertools.product(SEARCHED, METHODS):
        given = {"method": method, "bits": bits, "steps": 468, "seed": SEARCH_SEED}
        add(f"search-{method}-b{bits:02d}", search, **given)
    sizes = *itertools.product(BITS, METHODS), (8, "vq"), (9, "vq")  # the line to beat
    rates = best_rates()
    for seed, (bits, method) in itertools.product(SEEDS, sizes):
        if (fields := best(method, bits)) is None:
            continue
        steps = {"model": 1404} | ({"prior": 1874} if bits < max(BITS) else {})
        given = {"fields": fields, "steps": steps, "seed": seed}
        add(f"{method}-b{bits:02d}", rival, **given)
        if (method, bits) == ("vq", 10):  # with the rate that is not steady
            add("fast-vq-b10", rival, **given | {"fields": settings(method, bits)[-1]})
        if (method, bits, seed) == ("vq", 10, 0):
            shorter = given | {"steps": {"model": 1404, "prior": 468}}
            add("rates-vq-b10", search_rates, **shorter)
        if bits == 10 and seed in LEARNED.get(method, ()) and rates:
            add(f"priors-{method}-b10", priors, **given, rates=rates)
    return found


def config_of(fields: dict[str, Any], seed: int) -> VQVAEConfig:
    """Return the configuration of a run on the CPU."""
    return VQVAEConfig(seed=seed, device="cpu", **fields)


def held_out(train: ImageDataset) -> tuple[ImageDataset, ImageDataset]:
    """Split training images into those to train on and those to choose by."""
    kept = len(train) * 5 // 6
    return train.subset(slice(0, kept)), train.subset(slice(kept, None))


def test_error(trainer: VQVAETrainer) -> float:
    """Return the error on the test images."""
    return trainer.evaluate(BatchLoader(studies.data()[1], 500))["recon_loss"]


def search(method: str, bits: int, steps: int, seed: int) -> Parts:
    """Train each of six settings on part of the training images, judge on the rest."""
    (kept, rest), errors = held_out(studies.data()[0]), []
    for fields in settings(method, bits):
        config = config_of(fields, seed)
        trainer = VQVAETrainer(config)
        fit = create_dataloader(config, dataset=kept)
        judge = create_dataloader(config, dataset=rest, train=False)
        try:
            trainer.fit(fit, steps=steps)
            errors.append(trainer.evaluate(judge)["recon_loss"])
        except (TrainingError, ValueError):  # it diverged
            errors.append(1.0)
    return studies.parts({"MSE": min(errors), "MSE of each": errors})


class OneBook:
    """A model whose codes (B, h, w, n) are one grid (B, h, n w) of n K codes.

    The n codes of a position stand side by side, those of stage i numbered from i K, so
    that a prior of grids knows which comes next. Other codes stay as they are.
    """

    def __init__(self, model: VQVAE, n: int) -> None:
        self.model, self.n, self.K = model, n, model.vq.num_embeddings

    def parameters(self) -> Any:
        return self.model.parameters()

    def encode(self, x: Tensor) -> Tensor:
        """Encode images (B, C, H, W) as one grid of codes."""
        codes = self.model.encode(x)
        if self.n > 1:
            first = self.K * torch.arange(self.n, device=codes.device)
            codes = (codes + first).flatten(2)
        return codes

    def decode(self, codes: Tensor) -> Tensor:
        """Decode one grid; a code of another stage counts as that of its own."""
        if self.n > 1:
            codes = codes.unflatten(2, (-1, self.n)) % self.K  # (B, h, w, n)
        return self.model.decode(codes)


def rival(fields: dict[str, Any], steps: Steps, seed: int) -> Parts:
    """Measure error, use, bits under a learned prior, and samples of one method."""
    test = studies.data()[1]
    trainer = studies.autoencoder(config_of(fields, seed), steps["model"])
    n, K = fields.get("num_codebooks", 1), fields["num_embeddings"]
    model = OneBook(trainer.model, n)
    codes = collect_indices(trainer.model, BatchLoader(test, 500))
    books = codes.unbind(-1) if n > 1 else [codes]
    counts = [usage_counts(book, K) for book in books]
    numbers: dict[str, Any] = {
        "MSE": test_error(trainer),
        "active": sum(int((count > 0).sum()) for count in counts) / (n * K),
        "nominal bits": sum(rate(count, 49).nominal for count in counts),
        "entropy bits": sum(rate(count, 49).entropy for count in counts),
    }
    if "prior" not in steps:
        return studies.parts(numbers)
    prior = PriorConfig(num_embeddings=n * K, layers=6, seed=seed, device="cpu")
    net = studies.trained(PixelCNN(prior), prior, model, steps)
    drawn = in_parts(model.decode, net.model.sample(DRAWN, 7, 7 * n, seed=seed))
    numbers |= {**studies.prices(net, model), **studies.scores({"samples": drawn})}
    return studies.parts(numbers, {"samples": drawn[:SHOWN]})


def prior_of(name: str, coder: VQVAETrainer, lr: float, seed: int) -> tuple:
    """Return a model of codes as a prior takes them, and the prior with its config."""
    K, n = coder.config.num_embeddings, coder.config.num_codebooks
    common = {"lr": lr, "seed": seed, "device": "cpu"}
    if name == "transformer":
        of_codes = TransformerConfig(num_embeddings=K, depth=n, **common)
        return coder.model, TransformerPrior(of_codes), of_codes
    layers = 7 * n - 1  # so many see all earlier codes
    of_grid = PriorConfig(num_embeddings=n * K, layers=layers, **common)
    return OneBook(coder.model, n), PixelCNN(of_grid), of_grid


def search_rates(fields: dict[str, Any], steps: Steps, seed: int) -> Parts:
    """Try three learning rates of each prior: bits for codes of held-out images."""
    trainer = studies.autoencoder(config_of(fields, seed), steps["model"])
    fit, judge = held_out(studies.data()[0])
    bits: dict[str, list[float]] = {}
    for name, rates in PRIORS.items():
        for lr in rates:
            coded, net, config = prior_of(name, trainer, lr, seed)
            learner = Trainer(net, config)
            learner.fit(create_code_loader(config, coded, fit), steps=steps["prior"])
            loader = create_code_loader(config, coded, judge, train=False)
            found = learner.evaluate(loader)["bits_per_image"]
            bits.setdefault(name, []).append(found)
    return studies.parts({"MSE": test_error(trainer), "bits of each": bits})


def best_rates() -> dict[str, float]:
    """Return prior -> the rate with the fewest bits, once the search is stored."""
    return {
        name: PRIORS[name][bits.index(min(bits))]
        for study in stored_studies("rival-rates-")
        for name, bits in study.numbers["bits of each"].items()
    }


def priors(
    fields: dict[str, Any], steps: Steps, seed: int, rates: dict[str, float]
) -> Parts:
    """Price and sample the codes of one method under two kinds of prior."""
    trainer = studies.autoencoder(config_of(fields, seed), steps["model"])
    numbers, drawn = {"MSE": test_error(trainer)}, {}
    for name, lr in rates.items():
        coded, net, config = prior_of(name, trainer, lr, seed)
        start = time.perf_counter()
        learner = studies.trained(net, config, coded, steps)
        trained = time.perf_counter()
        grid = coded.encode(studies.data()[1].floats(slice(1))).shape[1:3]
        z = net.sample(DRAWN, *grid, seed=seed)
        found = {
            "seconds of training": trained - start,
            "seconds of drawing": time.perf_counter() - trained,
            "parameters": sum(p.numel() for p in net.parameters()),
            **studies.prices(learner, coded),
        }
        numbers |= {f"{name}, {what}": number for what, number in found.items()}
        drawn[name] = in_parts(coded.decode, z)
    shown = {name: images[:SHOWN] for name, images in drawn.items()}
    return studies.parts(numbers | studies.scores(drawn), shown)
