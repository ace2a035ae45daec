"""The user's description of the system: its names, its call signatures and its main block run on our package."""

from __future__ import annotations

import pytest
import torch
from matplotlib.figure import Figure

from vqvae_lib import (
    VQVAE,
    Decoder,
    Encoder,
    VectorQuantizer,
    VQVAEConfig,
    VQVAETrainer,
    create_dataloader,
    data,
    visualize_codebook_usage,
    visualize_reconstruction,
)


def test_the_main_block_runs_by_the_descriptions_names(monkeypatch, digits):
    monkeypatch.setattr(data, "load_images", lambda *_, **__: digits)
    config = VQVAEConfig()  # 20 epochs, here of 3 steps each
    loader = create_dataloader(config)
    trainer = VQVAETrainer(config)
    assert trainer.config is config
    assert trainer.device == torch.device(config.device)
    assert next(trainer.model.parameters()).device.type == trainer.device.type

    metrics = [trainer.train_epoch(loader) for _ in range(config.num_epochs)]
    for name in ("recon_loss", "vq_loss", "total_loss"):
        assert trainer.history[name] == [numbers[name] for numbers in metrics]
    assert metrics[-1]["recon_loss"] < metrics[0]["recon_loss"]

    assert isinstance(visualize_reconstruction(trainer, loader.dataset), Figure)
    assert isinstance(visualize_reconstruction(trainer, loader.dataset, n=3), Figure)
    assert isinstance(visualize_codebook_usage(trainer, loader), Figure)


def test_the_loaders_images_are_floats_and_batches_are_pairs(monkeypatch, digits):
    monkeypatch.setattr(data, "load_images", lambda *_, **__: digits)
    config = VQVAEConfig(batch_size=16)
    loader = create_dataloader(config)
    image, label = loader.dataset[0]
    assert (image.shape, image.dtype, label) == ((1, 28, 28), torch.float32, int(digits.labels[0]))
    x, labels = next(iter(loader))
    assert (x.shape, x.dtype, labels.shape) == ((16, 1, 28, 28), torch.float32, (16,))
    assert 0 <= x.min() < x.max() <= 1


def test_reconstruct_returns_images_and_indices_in_main_memory(digits):
    trainer = VQVAETrainer(VQVAEConfig())
    x = torch.stack([digits[i][0] for i in range(4)])
    x_recon, indices = trainer.reconstruct(x)
    assert (x_recon.shape, x_recon.device.type) == (x.shape, "cpu")
    assert (indices.shape, indices.device.type) == ((4, 7, 7), "cpu")


def test_the_parts_take_the_descriptions_arguments():
    config = VQVAEConfig(device="cpu")
    x = torch.rand(2, 1, 28, 28)
    z_e = Encoder(config)(x)
    quantizer = VectorQuantizer(config.num_embeddings, config.embedding_dim, config.commitment_cost)
    z_q, loss, indices = quantizer(z_e)
    assert (z_q.shape, loss.shape, indices.shape) == (z_e.shape, (), (2, 7, 7))
    assert Decoder(config)(z_q).shape == x.shape
    by_name = VectorQuantizer(num_embeddings=8, embedding_dim=4, commitment_cost=0.5)
    assert (by_name.num_embeddings, by_name.embedding_dim, by_name.commitment_cost) == (8, 4, 0.5)
    assert VectorQuantizer(8, 4).commitment_cost == 0.25
    x_recon, vq_loss, indices = VQVAE(config)(x)
    assert (x_recon.shape, vq_loss.shape, indices.shape) == (x.shape, (), (2, 7, 7))


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_layers_are_the_descriptions(part):
    """Channels, kernels and strides of each convolution, as the description lists them."""
    config = VQVAEConfig(device="cpu")
    half, full, D = config.hidden_dim // 2, config.hidden_dim, config.embedding_dim
    wanted = {
        "encoder": [(1, half, 4, 2), (half, full, 4, 2), (full, D, 3, 1)],
        "decoder": [(D, full, 3, 1), (full, half, 4, 2), (half, 1, 4, 2)],
    }
    layers = [layer for layer in getattr(VQVAE(config), part).net if hasattr(layer, "kernel_size")]
    found = [(la.in_channels, la.out_channels, la.kernel_size[0], la.stride[0]) for la in layers]
    assert found == wanted[part]
    assert all(layer.padding == (1, 1) for layer in layers)
