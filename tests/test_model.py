"""Encoder, decoder and the VQ-VAE: shapes, two roads to the same image, and clear errors."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from helpers import same_bits

from vqvae_lib import (
    VQVAE,
    Decoder,
    EMAVectorQuantizer,
    Encoder,
    ResizeDecoder,
    VectorQuantizer,
    VQVAEConfig,
    perplexity,
    receptive_field,
)

updates = pytest.mark.parametrize("update", ["ema", "gradient"])


@pytest.fixture
def images(digits):
    return digits.floats(slice(0, 24))


@pytest.fixture
def model(config, images):
    """A model whose codebook has seen one batch, in evaluation."""
    torch.manual_seed(0)
    model = VQVAE(config)
    model(images)
    return model.eval()


def test_shapes_are_the_descriptions():
    config = VQVAEConfig(device="cpu")
    x = torch.rand(2, 1, 28, 28)
    z_e = Encoder(config)(x)
    assert z_e.shape == (2, config.embedding_dim, 7, 7)
    assert Encoder(config).net[:2](x).shape == (2, config.hidden_dim // 2, 14, 14)
    x_recon = Decoder(config)(z_e)
    assert x_recon.shape == x.shape
    assert 0 <= x_recon.min() <= x_recon.max() <= 1


@updates
@pytest.mark.parametrize(("channels", "height", "width"), [(1, 28, 28), (3, 32, 32), (2, 8, 20)])
def test_output_unpacks_as_the_descriptions_triple(config, update, channels, height, width):
    model = VQVAE(replace(config, in_channels=channels, codebook_update=update))
    x = torch.rand(3, channels, height, width)
    out = model(x)
    x_recon, vq_loss, indices = out
    assert x_recon is out.x_recon and x_recon.shape == x.shape
    assert vq_loss is out.vq_loss and vq_loss.shape == ()
    assert indices is out.indices and indices.shape == (3, height // 4, width // 4)
    assert indices.dtype == torch.int64
    assert model.decode(indices).shape == x.shape


def test_the_update_chooses_the_quantizer_and_the_config_reaches_it(config):
    choices = replace(config, commitment_cost=0.7, decay=0.5, restart_threshold=0.125, init="uniform", seed=9)
    for update, kind in (("ema", EMAVectorQuantizer), ("gradient", VectorQuantizer)):
        vq = VQVAE(replace(choices, codebook_update=update)).vq
        assert type(vq) is kind
        named = {name: getattr(vq, name) for name in ("num_embeddings", "embedding_dim", "commitment_cost", "decay")}
        assert named == {name: getattr(choices, name) for name in named}
        assert (vq.restart_threshold, vq.init, vq.seed) == (0.125, "uniform", 9)


@updates
@pytest.mark.parametrize("batch", [1, 24])
def test_decoding_the_code_is_the_reconstruction_to_the_bit(config, images, update, batch):
    torch.manual_seed(0)
    model = VQVAE(replace(config, codebook_update=update))
    for _ in range(3):
        model(images)
    model.eval()
    with torch.no_grad():
        x = images[:batch]
        out = model(x)
        assert torch.equal(model.encode(x), out.indices)
        assert torch.equal(model.decode(model.encode(x)), out.x_recon)


@updates
def test_inside_autocast_both_roads_still_meet(config, images, update):
    torch.manual_seed(0)
    model = VQVAE(replace(config, codebook_update=update))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        model(images)
        out = model.eval()(images)
        assert out.vq_loss.dtype == model.vq.codebook.dtype == torch.float32
        assert torch.equal(model.decode(model.encode(images)), out.x_recon)


@pytest.mark.parametrize("training", [True, False])
def test_encode_moves_nothing_and_leaves_the_mode_as_it_was(model, images, training):
    model.train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.encode(1 - images)
    assert same_bits(model.state_dict(), before)
    assert model.training == model.vq.training == training


@torch.no_grad()
def test_the_objective_is_the_mean_error_plus_the_quantizers_loss(model, images):
    numbers = model.training_step(images, None)
    x_recon, vq_loss, indices = model(images)
    torch.testing.assert_close(numbers["recon_loss"], (x_recon - images).square().mean())
    torch.testing.assert_close(numbers["vq_loss"], vq_loss)
    torch.testing.assert_close(numbers["total_loss"], numbers["recon_loss"] + vq_loss)
    counts = torch.bincount(indices.flatten(), minlength=16)
    torch.testing.assert_close(numbers["code_frequency"], counts / counts.sum())
    summary = model.summarise(numbers)
    assert summary["active_codes"] == (counts > 0).sum()
    assert summary["perplexity"] == pytest.approx(float(perplexity(counts)), rel=1e-5)
    assert "code_frequency" not in summary


def test_every_weight_learns_from_the_objective(config, images):
    model = VQVAE(replace(config, codebook_update="gradient"))
    model.training_step(images, None)["total_loss"].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_reconstruction_reaches_the_encoder_and_not_the_codebook(config, images):
    model = VQVAE(replace(config, codebook_update="gradient"))
    F.mse_loss(model(images).x_recon, images).backward()
    assert model.encoder.net[0].weight.grad.abs().sum() > 0
    assert model.vq.codebook.grad is None


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 3, 28, 28), r"\(2, 3, 28, 28\): expected \(B, 1, H, W\)"),
        ((2, 1, 28, 30), r"\(2, 1, 28, 30\).*multiples of 4"),
        ((2, 1, 27, 28), r"\(2, 1, 27, 28\).*multiples of 4"),
        ((1, 28, 28), r"\(1, 28, 28\): expected \(B, 1"),
        ((0, 1, 28, 28), "an empty batch"),
    ],
)
@pytest.mark.parametrize("method", ["forward", "encode"])
def test_images_of_the_wrong_shape_raise(model, method, shape, message):
    with pytest.raises(ValueError, match=message):
        getattr(model, method)(torch.zeros(shape))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("method", ["forward", "encode"])
def test_images_that_are_not_finite_raise(model, images, method, bad):
    images[3, 0, 5, 5] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        getattr(model, method)(images)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        (torch.zeros(1, 7, 7), "torch.float32"),
        (torch.full((1, 7, 7), 16), "16 to 16.*0 to 15"),
        (torch.full((1, 7, 7), -1), "-1"),
    ],
)
def test_decode_refuses_what_is_no_index(model, indices, message):
    with pytest.raises(ValueError, match=message):
        model.decode(indices)


@pytest.mark.parametrize("shapes", [[(4, 2, 1)], [(4, 2, 1), (4, 2, 1), (3, 1, 1)], [(5, 1, 0), (2, 3, 1), (1, 1, 0)]])
def test_the_receptive_field_is_where_the_gradient_is(shapes):
    layers = [torch.nn.Conv2d(1, 1, k, stride, padding) for k, stride, padding in shapes]
    for layer in layers:
        torch.nn.init.ones_(layer.weight)
    side, step, overhang = receptive_field(layers)
    x = torch.zeros(1, 1, 60, 60, requires_grad=True)
    place = 6  # far from the border
    torch.nn.Sequential(*layers)(x)[0, 0, place, place].backward()
    first = place * step - overhang
    seen = (x.grad[0, 0] != 0).nonzero()
    assert seen.min(0).values.tolist() == [first, first]
    assert seen.max(0).values.tolist() == [first + side - 1] * 2


def test_a_resize_decoder_draws_equal_codes_flat_and_the_same_shape(config):
    vectors = torch.randn(4, config.embedding_dim, 1, 1).expand(-1, -1, 16, 16)
    with torch.no_grad():
        drawn = {kind: kind(config)(vectors) for kind in (Decoder, ResizeDecoder)}
    assert drawn[ResizeDecoder].shape == drawn[Decoder].shape == (4, config.in_channels, 64, 64)
    inner = {kind: x[:, :, 12:-12, 12:-12].flatten(2).std(-1).max() for kind, x in drawn.items()}
    assert inner[ResizeDecoder] < 1e-6 < 1e-3 < inner[Decoder]


def test_a_batch_that_is_refused_moves_nothing_not_even_the_first_grey():
    model = VQVAE(VQVAEConfig(hidden_dim=8, num_embeddings=16, embedding_dim=4, device="cpu")).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="NaN or infinite"):
        model(torch.full((2, 1, 28, 28), torch.nan))
    assert same_bits(model.state_dict(), before)
