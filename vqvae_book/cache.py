"""Trained models, kept from one execution of a chapter to the next."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path

import torch

import vqvae_lib
from vqvae_lib import BatchLoader, CheckpointError, VQVAEConfig, VQVAETrainer
from vqvae_lib._util import as_path

log = logging.getLogger(__name__)

# What training depends on: a change in any other module trains nothing anew.
MODULES = (
    *("_util", "config", "metrics", "lookup", "quantizer", "newer"),
    *("model", "data", "running", "trainer", "vqvae_trainer"),
)


def runs_folder() -> Path:
    """Return where runs are kept: ``VQVAE_CACHE``, else ``~/.cache/vqvae_lib/runs``."""
    try:
        return as_path(os.environ.get("VQVAE_CACHE") or "~/.cache/vqvae_lib/runs")
    except RuntimeError as error:  # no home folder is known
        raise RuntimeError(f"{error} Set VQVAE_CACHE to a folder.") from error


def load_or_train(
    config: VQVAEConfig,
    loader: BatchLoader,
    *,
    steps: int,
    window: int | None = None,
    cache: str | Path | None = None,
) -> VQVAETrainer:
    """Take a trained VQ-VAE from the cache, or train it and keep it there.

    If anything that decides the weights has changed, it is trained again. A run that
    was interrupted is resumed; processes may share the folder. If it can't be written,
    a warning says so, and the trained model is returned all the same.

    Args:
        config: every choice of the run.
        loader: the training batches.
        steps: optimizer steps.
        window: steps per entry of the history, as in ``Trainer.fit``.
        cache: folder; :func:`runs_folder` if not given.
    """
    order = loader.batch_size, loader.shuffle, loader.drop_last, loader.seed
    facts = [config.identity(), loader.dataset.fingerprint(), order, steps]
    library = Path(vqvae_lib.__file__).parent
    source = [(library / f"{name}.py").read_text("utf-8") for name in MODULES]
    facts += [torch.__version__, source]
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]
    path = (as_path(cache) if cache else runs_folder()) / f"{key}.pt"
    trainer = VQVAETrainer(config)
    try:
        trainer.load(path)
        log.info("loaded from %s: step %d of %d", path, trainer.step, steps)
    except FileNotFoundError:
        log.info("not in the cache yet: training %d steps", steps)
    except (CheckpointError, OSError) as error:
        log.warning("training again: %s", error)
    try:
        if trainer.step == 0:
            trainer.fit(loader, steps=steps, window=window, save_to=path)
        elif trainer.step < steps:
            trainer.resume(loader, window=window, save_to=path)
    except OSError as error:
        log.warning("the trained model can't be cached: %s", error)
        # The trainer still has all steps that it has done.
        trainer.resume(loader, window=window)
    return trainer
