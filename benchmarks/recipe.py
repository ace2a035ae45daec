"""Recipes: ours under other ways of training, judged by ``quality.py`` on held-out images.

Each recipe is a name and a number of steps. Every run also gives the mean of its weights (codebook included) over the
last tenth and fifth of its steps, which costs next to nothing. Compare error and seconds together.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vqvae_lib import BatchLoader, ImageDataset, VQVAETrainer, learning_rate, seed_at

RECIPES = {
    "as it is": 1404, "muon .02": 1404, "beta2 .95": 1404, "batch 64": 2808, "batch 32": 5616, "peak at .1": 1404,
    "muon .005": 1404, "peak at .2": 1404, "beta2 .99": 1404,
}  # fmt: skip
TAILS = (0.1, 0.2)  # of the steps, over which weights are averaged


def fit(trainer: VQVAETrainer, dataset: ImageDataset, recipe: str, steps: int) -> dict[str, dict[str, Tensor]]:
    """Train as the trainer's loop does, but by a recipe, and return the averaged weights."""
    config, model, (what, _, value) = trainer.config, trainer.model.train(), recipe.rpartition(" ")
    batch = int(value) if what == "batch" else config.batch_size
    peak = float(value) if what == "peak at" else 0.3
    loader = BatchLoader(dataset, batch, shuffle=True, drop_last=True, seed=config.seed, device=config.device)
    adam = {"betas": (0.9, float(value) if what == "beta2" else 0.999), "fused": True}
    kernels = hidden_kernels(model) if what == "muon" else []
    rest = [weight for weight in model.parameters() if all(weight is not kernel for kernel in kernels)]
    flat = [nn.Parameter(matrix(kernel.data)) for kernel in kernels]
    # Optimizers and the peak of the rate of each.
    optimizers = [(torch.optim.Adam(rest, lr=config.lr, **adam), config.lr)]
    if kernels:
        optimizers.append((torch.optim.Muon(flat, weight_decay=0.0), float(value)))
    means: dict[str, dict[str, Tensor]] = {}
    with torch.random.fork_rng():
        for step in range(steps):
            epoch, place = divmod(step, len(loader))
            if place == 0:
                loader.set_epoch(epoch)
                batches = iter(loader)
            done = step / steps
            # The library's cycle peaks at .3: stretched, it peaks where the recipe says.
            done = 0.3 * done / peak if done < peak else 0.3 + 0.7 * (done - peak) / (1 - peak)
            x, labels = next(batches)
            if step == 0:
                torch.manual_seed(seed_at(config.seed, step))
                model.initialize(x)
            torch.manual_seed(seed_at(config.seed, step))
            with torch.autocast(config.device, dtype=trainer.dtype, enabled=trainer.dtype is not None):
                loss = model.training_step(x, labels)["total_loss"]
            model.zero_grad()
            loss.backward()
            for kernel, weight in zip(kernels, flat, strict=True):
                weight.grad = matrix(kernel.grad)
            for optimizer, rate in optimizers:
                optimizer.param_groups[0]["lr"] = learning_rate(done, rate)
                optimizer.step()
            average(means, model, step, steps)
    return means


def average(means: dict[str, dict[str, Tensor]], model: nn.Module, step: int, steps: int) -> None:
    """Take the weights after a step into the means that span it."""
    for tail in TAILS:
        first = round(steps * (1 - tail))
        if step >= first:
            mean = means.setdefault(f"mean of last {tail:g}", {})
            for name, value in model.state_dict().items():
                if name not in mean or not value.is_floating_point():
                    mean[name] = value.clone()
                else:
                    mean[name].lerp_(value, 1 / (step - first + 1))


def hidden_kernels(model: nn.Module) -> list[nn.Parameter]:
    """The kernels of all convolutions but the first and the last, for which Muon is not meant."""
    found: list[Any] = [part for part in model.modules() if isinstance(part, nn.Conv2d | nn.ConvTranspose2d)]
    return [part.weight for part in found[1:-1]]


def matrix(kernel: Tensor) -> Tensor:
    """A kernel (O, I, h, w) as (O, h w I), what Muon takes; a view, since kernels are laid out channels last."""
    return kernel.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).flatten(1)
