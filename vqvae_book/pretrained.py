"""Make the trained models that the library ships: python -m vqvae_book.pretrained.

Each is trained as the stored studies were, rounded to half precision, and measured as
it is shipped. This needs the real MNIST (VQVAE_DATA), and takes minutes on one core.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from safetensors.torch import save
from torch import nn

from vqvae_lib._util import atomic_write
from vqvae_lib.config import VQVAEConfig
from vqvae_lib.data import BatchLoader, create_dataloader
from vqvae_lib.metrics import collect_indices, mse, usage_counts
from vqvae_lib.model import VQVAE
from vqvae_lib.pretrained import WEIGHTS
from vqvae_lib.prior import PixelCNN, PriorConfig, create_code_loader
from vqvae_lib.trainer import Trainer

from .cache import load_or_train, runs_folder
from .results import provenance
from .studies import data, in_parts, prices, share

SIZES = (8, 32, 128, 512)  # of the codebook
STEPS = {"model": 1404, "prior": 3748}  # as in `vqvae_book.studies`
MODELS = {f"mnist-k{K}": K for K in SIZES}
PRIOR, OF = "mnist-k32-classes", "mnist-k32"


def half(model: nn.Module) -> dict[str, Any]:
    """Round a model to half precision, in place, and return the rounded state."""
    state = model.state_dict()
    rounded = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    model.load_state_dict(rounded)
    return {k: v.contiguous() for k, v in rounded.items()}


def make_model(K: int) -> tuple[VQVAE, dict[str, Any]]:
    """Train a VQ-VAE with K codes; return it as shipped, and facts about it."""
    config = VQVAEConfig(num_embeddings=K, seed=0, device="cpu")
    loader = create_dataloader(config, dataset=data()[0])
    model = load_or_train(config, loader, steps=STEPS["model"]).model.eval()
    test = BatchLoader(data()[1], 500)
    exact = collect_indices(model, test)
    half(model)
    codes = collect_indices(model, test)
    x = test.dataset.floats()
    about = {
        "config": config.identity(),
        "steps": STEPS["model"],
        "MSE": mse(x, in_parts(model.decode, codes)),
        "usage": usage_counts(codes, K).tolist(),  # on the test set
        "codes kept": share(codes == exact),  # in half precision
    }
    return model, about


def make_prior() -> tuple[PixelCNN, dict[str, Any]]:
    """Train the prior on codes of the shipped model; return it as `make_model` does."""
    config = PriorConfig(
        num_embeddings=MODELS[OF], num_classes=10, layers=6, seed=0, device="cpu"
    )
    model, trainer = VQVAE.from_pretrained(OF), Trainer(PixelCNN(config), config)
    loader = create_code_loader(config, model, data()[0])
    path = runs_folder() / f"{PRIOR}.pt"  # a run that broke off goes on
    if path.exists():
        trainer.load(path)
        trainer.resume(loader, save_to=path)
    else:
        trainer.fit(loader, steps=STEPS["prior"], save_to=path)
    path.unlink()
    half(trainer.model)
    bits = prices(trainer, model)["prior bits"]
    about = {"config": config.identity(), "steps": STEPS["prior"], "of": OF}
    return trainer.model, about | {"bits": bits}


def main(names: list[str]) -> None:
    """Make the models named, or those that are missing."""
    for name in names or [*MODELS, PRIOR]:
        path, start = WEIGHTS / f"{name}.safetensors", time.perf_counter()
        if path.exists() and not names:
            continue
        model, about = make_prior() if name == PRIOR else make_model(MODELS[name])
        about |= {"name": name, "class": type(model).__name__}
        origin = provenance(*data(), time.perf_counter() - start)
        metadata = {"about": json.dumps(about | {"provenance": origin})}
        atomic_write(path, save(half(model), metadata))
        print(
            name, {k: v for k, v in about.items() if k in ("MSE", "bits")}, flush=True
        )


if __name__ == "__main__":
    main(sys.argv[1:])
