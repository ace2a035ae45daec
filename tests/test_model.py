"""Encoder, decoder and the VQ-VAE: two roads to one image, the start, clear errors, and what PyTorch's tools ask."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from helpers import HALVES, NoFloat64, no_looks, same_bits, snapshot, train

from vqvae_book.extras import ResizeDecoder, receptive_field
from vqvae_lib import EMAVectorQuantizer, VectorQuantizer, eval_mode, seeded
from vqvae_lib.metrics import collect_indices, mse, perplexity, rate
from vqvae_lib.model import VQVAE, Decoder, Encoder, ResidualBlock

updates = pytest.mark.parametrize("update", ["ema", "gradient"])


@pytest.fixture
def images(digits):
    return digits.floats(slice(0, 24))


@pytest.fixture
def start(config, images):
    """Make a model that has started and seen three batches."""

    def made(**choices: object) -> VQVAE:
        with seeded(0):
            model = VQVAE(replace(config, **choices))
            model.initialize(images)
            for _ in range(3):
                model(images)
        return model

    return made


@updates
@pytest.mark.parametrize(("channels", "height", "width"), [(1, 28, 28), (3, 32, 32), (2, 8, 20)])
def test_output_unpacks_as_the_descriptions_triple(config, update, channels, height, width):
    named = {"commitment_cost": 0.7, "decay": 0.5, "restart_threshold": 0.125, "init": "uniform", "seed": 9}
    config = replace(config, in_channels=channels, codebook_update=update, **named)
    model, x = VQVAE(config), torch.rand(3, channels, height, width)
    assert type(model.vq) is {"ema": EMAVectorQuantizer, "gradient": VectorQuantizer}[update]
    assert {name: getattr(model.vq, name) for name in named} == named
    out = model(x)
    x_recon, vq_loss, indices = out
    assert x_recon is out.x_recon and x_recon.shape == model.decode(indices).shape == x.shape
    assert 0 <= x_recon.min() <= x_recon.max() <= 1
    assert vq_loss is out.vq_loss and vq_loss.shape == ()
    assert indices is out.indices and indices.shape == (3, height // 4, width // 4)
    assert Encoder(config)(x).shape == (3, config.embedding_dim, height // 4, width // 4)


@pytest.mark.parametrize(("downsampling", "layers"), [(4, 2), (8, 0), (8, 1)])
def test_a_deeper_model_has_a_smaller_grid_or_blocks_and_every_weight_learns(start, config, downsampling, layers):
    chosen = replace(config, downsampling=downsampling, residual_layers=layers, codebook_update="gradient")
    model, x = VQVAE(chosen), torch.rand(3, 1, 32, 48)
    model.initialize(x)
    out = model(x)
    assert out.indices.shape == (3, 32 // downsampling, 48 // downsampling)
    assert model.decode(out.indices).shape == x.shape
    for part in (model.encoder, model.decoder):
        assert sum(isinstance(layer, ResidualBlock) for layer in part.net) == layers
    model.training_step(x)["total_loss"].backward()
    assert [name for name, p in model.named_parameters() if not p.grad.any()] == []
    for call in (model, model.initialize, model.encode):
        with pytest.raises(ValueError, match=f"multiples of {downsampling}"):
            call(torch.rand(1, 1, 36 if downsampling == 8 else 34, 32))


def test_a_residual_block_adds_two_convolutions_to_what_it_gets():
    block, x = ResidualBlock(6, 4).double(), torch.randn(2, 6, 5, 7, dtype=torch.float64)
    before, (three, one) = x.clone(), block.parameters()
    expected = before + F.conv2d(F.conv2d(before.clamp(min=0), three, padding=1).clamp(min=0), one)
    torch.testing.assert_close(block(x), expected)
    assert torch.equal(x, before)


@updates
@pytest.mark.parametrize("autocast", [False, True])
@torch.no_grad()
def test_decoding_the_code_is_the_reconstruction_to_the_bit(start, images, update, autocast):
    model = start(codebook_update=update).eval()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        for x in (images, images[:1]):
            out = model(x)
            assert torch.equal(model.encode(x), out.indices)
            assert torch.equal(model.decode(model.encode(x)), out.x_recon)
            assert out.vq_loss.dtype == model.vq.codebook.dtype == torch.float32


@pytest.mark.parametrize("training", [True, False])
def test_encode_moves_nothing_and_leaves_each_mode_as_it_was(start, images, training):
    model = start().train()
    model.vq.train(training)
    before = snapshot(model)
    codes = model.encode(1 - images)
    with eval_mode(model):
        assert not any(part.training for part in model.modules())
        assert torch.equal(model(1 - images).indices, codes)
    assert same_bits(model.state_dict(), before)
    assert (model.training, model.encoder.training, model.vq.training) == (True, True, training)


@torch.no_grad()
def test_the_objective_is_the_mean_error_plus_the_quantizers_loss(start, images):
    model = start().eval()
    numbers = model.training_step(images, None)
    x_recon, vq_loss, indices = model(images)
    torch.testing.assert_close(numbers["recon_loss"], (x_recon - images).square().mean())
    torch.testing.assert_close(numbers["vq_loss"], vq_loss)
    torch.testing.assert_close(numbers["total_loss"], numbers["recon_loss"] + vq_loss)
    counts = torch.bincount(indices.flatten(), minlength=16)
    torch.testing.assert_close(numbers["code_frequency"], counts / counts.sum())
    summary = model.summarize(numbers)
    assert summary["active_codes"] == (counts > 0).sum()
    assert summary["perplexity"] == pytest.approx(float(perplexity(counts)), rel=1e-5)
    assert "code_frequency" not in summary


def test_every_weight_learns_and_the_reconstruction_does_not_reach_the_codebook(start, images):
    model = start(codebook_update="gradient")
    F.mse_loss(model(images).x_recon, images).backward()
    assert model.encoder.net[0].weight.grad.any() and model.vq.codebook.grad is None
    model.training_step(images)["total_loss"].backward()
    assert [name for name, p in model.named_parameters() if not p.grad.any()] == []


@pytest.mark.parametrize("shapes", [[(4, 2, 1)], [(4, 2, 1), (4, 2, 1), (3, 1, 1)], [(5, 1, 0), (2, 3, 1), (1, 1, 0)]])
def test_the_receptive_field_is_where_the_gradient_is(shapes):
    layers = [torch.nn.Conv2d(1, 1, k, stride, padding) for k, stride, padding in shapes]
    for layer in layers:
        torch.nn.init.ones_(layer.weight)
    size, jump, padding = receptive_field(layers)
    x = torch.zeros(1, 1, 60, 60, requires_grad=True)
    torch.nn.Sequential(*layers)(x)[0, 0, 6, 6].backward()  # far from the border
    first = 6 * jump - padding
    seen = (x.grad[0, 0] != 0).nonzero()
    assert seen.min(0).values.tolist() == [first, first]
    assert seen.max(0).values.tolist() == [first + size - 1] * 2


def test_a_resize_decoder_draws_equal_codes_flat_and_the_same_shape(config):
    vectors = torch.randn(4, config.embedding_dim, 1, 1).expand(-1, -1, 16, 16)
    with torch.no_grad():
        drawn = {kind: kind(config)(vectors) for kind in (Decoder, ResizeDecoder)}
    assert drawn[ResizeDecoder].shape == drawn[Decoder].shape == (4, config.in_channels, 64, 64)
    inner = {kind: x[:, :, 12:-12, 12:-12].flatten(2).std(-1).max() for kind, x in drawn.items()}
    assert inner[ResizeDecoder] < 1e-6 < 1e-3 < inner[Decoder]


@updates
def test_the_start_draws_the_mean_image_happens_once_and_is_no_part_of_forward(config, images, update):
    model = VQVAE(replace(config, codebook_update=update, in_channels=3)).train()
    x = torch.cat([images, torch.zeros_like(images), torch.ones_like(images)], 1)
    before = snapshot(model)
    model.vq.eval()
    for given in (x, 1 - x):  # where the quantizer was in evaluation, each forward once set the decoder's bias anew
        model(given)
    assert same_bits(model.state_dict(), before)
    model.initialize(x)
    drawn = model.decoder.net[-2].bias.sigmoid()
    torch.testing.assert_close(drawn, torch.stack([images.mean(), *torch.tensor([0.01, 0.99])]))  # no logit of 0 or 1
    before = snapshot(model)
    model.initialize(1 - x)
    assert same_bits(model.state_dict(), before)


def test_a_uniform_codebook_is_no_copy_of_the_weights_of_the_same_seed(config):
    with seeded(config.seed):
        model = VQVAE(replace(config, init="uniform"))
    first = torch.stack([model.vq.codebook.flatten()[:64], model.encoder.net[0].weight.detach().flatten()[:64]])
    assert float(first.corrcoef()[0, 1].abs()) < 0.5


@pytest.mark.parametrize(
    "wrong", [lambda x: 2 * x - 1, lambda x: 255 * x, lambda x: (x - x.mean()) / x.std(), lambda x: x * math.nan]
)
@pytest.mark.parametrize("method", ["initialize", "training_step", "encode"])
def test_images_of_another_range_are_refused(config, images, wrong, method, monkeypatch):
    model = VQVAE(config)
    before = snapshot(model)
    for looks in (True, False) if method == "initialize" else (True,):  # at the start on a GPU too
        monkeypatch.setattr("vqvae_lib.model.can_look", lambda tensor, looks=looks: looks)
        with pytest.raises(ValueError, match=r"\bx\b.*\[0, 1\]"):
            getattr(model, method)(wrong(images))
    assert same_bits(model.state_dict(), before)


@pytest.mark.parametrize("method", ["forward", "encode", "initialize", "training_step"])
@pytest.mark.parametrize(
    ("x", "error"),
    [
        *(
            (torch.zeros(shape), ValueError)
            for shape in [(2, 3, 28, 28), (2, 1, 28, 30), (1, 28, 28), (0, 1, 8, 8), (2, 1, 0, 0)]
        ),
        *((torch.zeros(2, 1, 8, 8, dtype=dtype), ValueError) for dtype in (torch.uint8, torch.int64, torch.float64)),
        (torch.zeros(2, 1, 8, 8).numpy(), TypeError),
        (torch.full((2, 1, 8, 8), math.nan), ValueError),
    ],
)
def test_what_is_no_batch_of_images_is_refused_and_moves_nothing(config, method, x, error):
    model = VQVAE(config)
    before = snapshot(model)
    with pytest.raises(error, match=r"\b(x|z_e|NaN)\b"):
        getattr(model, method)(x)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(error, match=r"\b(x|z_e|NaN)\b"):
        getattr(model, method)(x)
    assert same_bits(model.state_dict(), before)
    with pytest.raises(ValueError, match="indices"):
        model.decode(torch.zeros(config.embedding_dim, 7, dtype=torch.long))  # one image's, not a batch


@updates
def test_a_device_without_float64_does(config, images, update):
    with NoFloat64():
        with pytest.raises(TypeError):
            images.double()
        model = VQVAE(replace(config, codebook_update=update, restart_threshold=0.9)).train()
        model.initialize(images)
        numbers = model.training_step(images)
        numbers["total_loss"].backward()
        model.summarize(numbers)
        indices = collect_indices(model, [images])
        mse(images, model.decode(indices))
        rate(torch.bincount(indices.flatten()), 49)


@updates
@pytest.mark.parametrize("autocast", [False, True])
def test_training_steps_never_wait_for_the_device(monkeypatch, start, images, update, autocast):
    """What a GPU would run: there values are not looked at, and restarts are drawn in each step."""
    model = start(codebook_update=update, restart_threshold=0.9)
    for module in ("_util", "lookup", "model", "quantizer"):
        monkeypatch.setattr(f"vqvae_lib.{module}.can_look", lambda tensor: False)
    with pytest.raises(AssertionError), no_looks():
        float(images.sum())
    before = snapshot(model)
    with no_looks(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        train(model, images, 10)
        model.training_step(images)["total_loss"].backward()
        model.decode(model.encode(images))
    assert not torch.equal(model.vq.codebook, before["vq.codebook"])
    assert all(value.isfinite().all() for value in model.state_dict().values())


@updates
@pytest.mark.parametrize("dtype", [torch.float64, *HALVES])
def test_a_model_of_another_dtype_trains(config, images, update, dtype):
    model, images = VQVAE(replace(config, codebook_update=update)).to(dtype), images.to(dtype)
    model.initialize(images)
    train(model, images, 2)
    numbers = model.training_step(images)
    assert numbers["recon_loss"].dtype == torch.promote_types(dtype, torch.float32)
    assert numbers["recon_loss"].isfinite()
    assert model.vq.usage.sum() > 500  # of 24 x 49 vectors: bfloat16 counts to 256
    with pytest.raises(ValueError, match="weights"):
        model(images.to(torch.float32))


def test_a_compiled_model_trains_without_compiling_again(start, images):
    model, other = (start(restart_threshold=0.9) for _ in range(2))
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager")
    with seeded(1):
        train(compiled, images, 2)
        with torch._dynamo.config.patch(error_on_recompile=True):
            train(compiled, images, 10)
    with seeded(1):
        train(other, images, 12)
    assert same_bits(snapshot(model), snapshot(other))


@pytest.mark.skipif(not hasattr(torch.compiler, "is_exporting"), reason="batches of any size: from torch 2.7 on")
@pytest.mark.parametrize("name", ["encode", "decode", "forward"])
def test_the_model_can_be_exported_for_batches_of_any_size(start, images, name):
    model = start().eval()
    given = model.encode(images) if name == "decode" else images
    model.forward = getattr(model, name)
    size = torch.export.Dim("batch", min=1, max=4096)
    exported = torch.export.export(model, (given,), dynamic_shapes=({0: size},)).module()
    for x in (given, given[:1], given.repeat(4, *[1] * (given.dim() - 1))):
        torch.testing.assert_close(tuple(exported(x)), tuple(model(x)))


def test_weights_lie_as_flat_tools_expect(start, images):
    model = start(codebook_update="gradient")
    assert all(value.is_contiguous() for value in model.state_dict().values())
    loss = model.training_step(images)["total_loss"]
    loss.backward()
    before = torch.nn.utils.parameters_to_vector(model.parameters())
    torch.optim.LBFGS(model.parameters()).step(lambda: loss)
    assert not torch.equal(torch.nn.utils.parameters_to_vector(model.parameters()), before)
    torch.nn.utils.vector_to_parameters(before, model.parameters())
    torch.testing.assert_close(model.eval().training_step(images)["total_loss"], loss)


@updates
def test_a_model_made_without_memory_knows_shapes_and_takes_weights(start, config, images, update):
    with torch.device("meta"):
        model = VQVAE(replace(config, codebook_update=update)).train()
        numbers = model.training_step(images.to("meta"))
    numbers["total_loss"].backward()
    assert numbers["code_frequency"].shape == (config.num_embeddings,)
    other = start(codebook_update=update)
    model.load_state_dict(snapshot(other), assign=True)
    with torch.inference_mode():
        for _ in range(2):  # codebooks move here too
            assert same_bits(tuple(model(images)), tuple(other(images)))
