"""The user's description of the system: its names, its call signatures and its main block run on our package."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure

import vqvae_lib as lib
from vqvae_lib import VQVAE, Decoder, Encoder, VectorQuantizer, VQVAEConfig, VQVAETrainer, create_dataloader


def test_the_main_block_runs_by_the_descriptions_names(monkeypatch, digits):
    monkeypatch.setattr("vqvae_lib.data.load_images", lambda *_, **__: digits.subset(slice(0, 128)))
    config = VQVAEConfig()  # 20 epochs, here of one step each
    loader = create_dataloader(config)
    x, labels = next(iter(loader))
    assert (x.shape, x.dtype, labels.shape) == ((128, 1, 28, 28), torch.float32, (128,)) and 0 <= x.min() < x.max() <= 1
    image, label = loader.dataset[0]
    assert (image.shape, image.dtype, label) == ((1, 28, 28), torch.float32, int(digits.labels[0]))
    trainer = VQVAETrainer(config)
    assert trainer.config is config
    assert next(trainer.model.parameters()).device.type == trainer.device.type == torch.device(config.device).type

    metrics = [trainer.train_epoch(loader) for _ in range(config.num_epochs)]
    for name in ("recon_loss", "vq_loss", "total_loss"):
        assert trainer.history[name] == [numbers[name] for numbers in metrics]
    assert min(numbers["recon_loss"] for numbers in metrics) < metrics[0]["recon_loss"]

    x_recon, indices = trainer.reconstruct(x)
    assert (x_recon.shape, x_recon.device.type) == (x.shape, "cpu")
    assert (indices.shape, indices.device.type) == ((128, 7, 7), "cpu")
    assert isinstance(lib.visualize_reconstruction(trainer, loader.dataset), Figure)
    assert isinstance(lib.visualize_codebook_usage(trainer, loader), Figure)


def test_the_parts_take_the_descriptions_arguments():
    config, x = VQVAEConfig(device="cpu"), torch.rand(2, 1, 28, 28)
    z_e = Encoder(config)(x)
    z_q, loss, indices = VectorQuantizer(config.num_embeddings, config.embedding_dim, config.commitment_cost)(z_e)
    assert (z_q.shape, loss.shape, indices.shape) == (z_e.shape, (), (2, 7, 7))
    assert Decoder(config)(z_q).shape == x.shape
    assert VectorQuantizer(num_embeddings=8, embedding_dim=4, commitment_cost=0.5).codebook.shape == (8, 4)
    x_recon, vq_loss, indices = VQVAE(config)(x)
    assert (x_recon.shape, vq_loss.shape, indices.shape) == (x.shape, (), (2, 7, 7))


def test_layers_are_the_descriptions():
    """Channels, kernels and strides of each convolution, as the description lists them."""
    layers = [layer for layer in VQVAE(VQVAEConfig(device="cpu")).modules() if hasattr(layer, "kernel_size")]
    found = [(la.in_channels, la.out_channels, la.kernel_size[0], la.stride[0], la.padding[0]) for la in layers]
    encoder = [(1, 64, 4, 2, 1), (64, 128, 4, 2, 1), (128, 64, 3, 1, 1)]
    assert found == [*encoder, (64, 128, 3, 1, 1), (128, 64, 4, 2, 1), (64, 1, 4, 2, 1)]
