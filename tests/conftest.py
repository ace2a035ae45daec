"""What the tests share: few images, a small model, and a closed network."""

from __future__ import annotations

import socket

import pytest
import torch
from helpers import HAS_MNIST

from vqvae_lib import BatchLoader, ImageDataset, VQVAEConfig, VQVAETrainer, draw_glyphs, load_images, seeded

torch.set_num_threads(1)  # the tensors here are small: a second thread would only wait


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """No test may reach the network; one that tries sees what a machine without any would show."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("the tests use no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(autouse=True)
def same_draws():
    """Each test draws the same numbers, whichever ran before."""
    with seeded(0):
        yield


@pytest.fixture(scope="session")
def digits() -> ImageDataset:
    """400 images of 1 x 28 x 28: real test digits where MNIST is on disk, drawn ones elsewhere."""
    if HAS_MNIST:
        return load_images("mnist", train=False).subset(slice(0, 400))
    return ImageDataset(*draw_glyphs("0123456789", 400, seed=1), "glyphs")


@pytest.fixture
def config() -> VQVAEConfig:
    """A model small enough to train for a few steps in a blink."""
    return VQVAEConfig(hidden_dim=8, num_embeddings=16, embedding_dim=4, batch_size=32, num_epochs=2, device="cpu")


@pytest.fixture
def loader(digits, config) -> BatchLoader:
    """Twelve shuffled batches of 32 an epoch; the last sixteen images are left over."""
    return BatchLoader(digits, config.batch_size, shuffle=True, drop_last=True, seed=config.seed)


@pytest.fixture
def trainer(config) -> VQVAETrainer:
    """An untrained VQ-VAE with its trainer."""
    return VQVAETrainer(config)
