"""The VAE: the KL against torch's and against samples, bounds in their order, gradients, and both kinds of latent."""

from __future__ import annotations

import itertools
import math
import re
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import NoFloat64, same_bits, snapshot
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from vqvae_book.extras import binarized, latent_usage
from vqvae_lib import (
    ACTIVE_NATS,
    VAE,
    AutoregressiveVAE,
    BatchLoader,
    ImageDataset,
    LatentPrior,
    PriorConfig,
    Trainer,
    VAEConfig,
    create_code_loader,
    gaussian_kl,
    reparameterize,
)

SIZES = {"hidden_dim": 8, "embedding_dim": 4, "latent_dim": 2, "num_embeddings": 8, "decoder_dim": 8, "batch_size": 32}
SMALL = VAEConfig(**SIZES, device="cpu")
BLACK_AND_WHITE = replace(SMALL, grid_side=3, decoder_layers=2)
PRIOR = PriorConfig(num_embeddings=3, hidden_dim=8, layers=2, batch_size=32, lr=1e-2, device="cpu", precision="float32")
latents = pytest.mark.parametrize("latent", ["grid", "vector"])
bottlenecks = pytest.mark.parametrize("bottleneck", ["gaussian", "vq"])
MODELS = {
    "vae": lambda: VAE(SMALL),
    "gaussian": lambda: AutoregressiveVAE(BLACK_AND_WHITE),
    "vq": lambda: AutoregressiveVAE(replace(BLACK_AND_WHITE, bottleneck="vq", init="uniform")),
    "prior": lambda: LatentPrior(PRIOR, 2),
}
models = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)


@pytest.fixture
def images(digits) -> Tensor:
    return digits.floats(slice(0, 16))


@pytest.fixture
def pixels(digits) -> Tensor:
    return binarized(digits).tensors[0][:16]


def moments(*shape: int) -> tuple[Tensor, Tensor]:
    return torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)


def batch_for(model) -> Tensor:
    """Four images, black and white; or what a prior is trained on."""
    return (torch.rand(4, 4 if isinstance(model, LatentPrior) else 1, 12, 12) > 0.5).float()


def test_the_kl_is_torchs():
    mean, log_variance = moments(50, 7)
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(gaussian_kl(mean, log_variance), expected, rtol=1e-12, atol=1e-12)
    assert gaussian_kl(torch.zeros(3), torch.zeros(3)).tolist() == [0, 0, 0]


def test_the_kl_is_what_samples_say():
    mean, log_variance = moments(4)
    z = reparameterize(mean.expand(100_000, -1), log_variance.expand(100_000, -1))
    ratio = Normal(mean, (log_variance / 2).exp()).log_prob(z) - Normal(0.0, 1.0).log_prob(z)
    error = ratio.std(0) / math.sqrt(len(z))
    assert ((ratio.mean(0) - gaussian_kl(mean, log_variance)).abs() < 4 * error).all()


def test_reparameterized_draws_have_the_moments_and_hand_on_the_gradient():
    mean, log_variance = (value.expand(100_000, 3).clone().requires_grad_() for value in moments(3))
    z = reparameterize(mean, log_variance)
    torch.testing.assert_close(z.mean(0), mean[0], rtol=0, atol=0.03)
    torch.testing.assert_close(z.var(0).log(), log_variance[0], rtol=0, atol=0.03)
    z.sum().backward()
    assert (mean.grad == 1).all()
    torch.testing.assert_close(log_variance.grad, (z - mean).detach() / 2)  # d/dv of exp(v / 2) noise


@latents
@torch.no_grad()
def test_the_numbers_are_those_of_the_equation(images, latent):
    model = VAE(replace(SMALL, latent=latent, kl_weight=0.3, variance=0.05)).eval()
    torch.manual_seed(1)
    numbers = model.summarize(model.training_step(images))
    torch.manual_seed(1)
    x_recon, kl = model(images), model.kl(images)
    side = 7 if latent == "grid" else 1
    assert kl.shape == (16, 2, side, side) and model.encode(images).shape == (16, 4, side, side)
    assert x_recon.shape == images.shape and 0 <= x_recon.min() <= x_recon.max() <= 1
    nats = -Normal(x_recon.double(), math.sqrt(0.05)).log_prob(images.double()).flatten(1).sum(1).mean()
    rate, mse = kl.flatten(1).sum(1).mean(), (x_recon - images).square().mean()
    active = (kl.mean(0) > ACTIVE_NATS).sum()
    expected = {"distortion": nats, "rate": rate / math.log(2), "elbo": -nats - rate, "mse": mse, "active": active}
    expected |= {"elbo_bits": (-nats - rate) / math.log(2), "total_loss": (nats + 0.3 * rate) / 784}
    assert numbers == pytest.approx({name: float(value) for name, value in expected.items()}, rel=1e-4)


@latents
def test_more_samples_come_closer_from_below(images, latent):
    """The bound of one sample is on average the ELBO; more of the same draws give more: Jensen's inequality."""
    model = VAE(replace(SMALL, latent=latent, variance=1.0)).requires_grad_(False)
    torch.nn.init.constant_(model.latent.project.bias[2:], -4)  # a posterior far from the prior
    torch.manual_seed(0)
    single = torch.stack([model.bound(images) for _ in range(50)])
    distortion = model.distortion(images, model.draw_latent(images))["distortion"].mean()
    elbo = -distortion - model.kl(images).sum((1, 2, 3)).mean()
    assert float(single.mean()) == pytest.approx(float(elbo), abs=5 * float(single.mean(1).std()))
    bounds = [(single.unflatten(0, (-1, S)).logsumexp(1) - math.log(S)).mean(0) for S in (1, 5, 50)]
    assert all((more >= few - 1e-3).all() for few, more in itertools.pairwise(bounds))
    torch.manual_seed(0)
    torch.testing.assert_close(model.bound(images, 50), bounds[-1])


def test_units_that_carry_more_than_the_threshold_are_active(images):
    terms = torch.no_grad()(VAE(SMALL).training_step)(images)
    terms["kl_per_number"] = torch.tensor([0.0, ACTIVE_NATS, 1.1 * ACTIVE_NATS, 2.0])
    assert VAE(SMALL).summarize(terms)["active"] == 2


def test_the_decoder_starts_at_the_mean_once_and_nowhere_else(images):
    model, other = VAE(SMALL), VAE(SMALL)
    before = snapshot(model)
    model.training_step(images)
    model.bound(images)
    assert same_bits(snapshot(model), before)
    model.initialize(images)
    torch.testing.assert_close(model.decoder.net[-2].bias.sigmoid()[0], images.mean())
    other.load_state_dict(model.state_dict())
    other.initialize(1 - images)
    assert same_bits(snapshot(other), snapshot(model))
    with pytest.raises(ValueError, match="x = "):
        model.initialize(255 * images)


def test_binarized_images_are_black_or_white(digits):
    values, labels = binarized(digits, 14).tensors
    assert values.shape == (400, 1, 14, 14) and set(values.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(labels, digits.labels)
    blocks = digits.floats().unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))
    clear = (blocks - 0.5).abs() > 1e-4
    assert torch.equal(values[clear], (blocks > 0.5).float()[clear])
    half = ImageDataset(torch.tensor([[[[0, 255], [255, 0]]]], dtype=torch.uint8))
    assert binarized(half, 1).tensors[0].item() == 0  # just a half is still black


@pytest.mark.parametrize("how", ["map", "bias", "last", "none"])
@bottlenecks
@latents
@torch.no_grad()
def test_both_latents_reach_the_decoder_in_the_same_way(pixels, bottleneck, how, latent):
    config = replace(BLACK_AND_WHITE, bottleneck=bottleneck, conditioning=how, latent=latent)
    model, side = AutoregressiveVAE(config), 3 if latent == "grid" else 1
    model.initialize(pixels)
    z = model.eval().draw_latent(pixels)
    assert z.shape == (16, 2, side, side) and model(pixels).shape == (16, 2, 14, 14)
    numbers = model.summarize(model.training_step(pixels[:1]))  # one image is batch enough
    assert numbers["elbo"] == pytest.approx(-numbers["distortion"] - numbers["rate"] * math.log(2), rel=1e-5)
    if bottleneck == "vq":
        assert numbers["rate"] == pytest.approx(side**2 * 3)  # log2 of 8 codes
        torch.testing.assert_close(z, model.latent.vq.lookup(model.encode(pixels)))
    other = AutoregressiveVAE(replace(config, bottleneck="gaussian"))
    assert same_bits(other.decoder.state_dict(), model.decoder.state_dict())
    costs = [model.distortion(pixels, latent)["distortion"] for latent in (z, z.roll(1, 0))]
    assert torch.equal(*costs) == (how == "none")
    drawn = model.sample(z[:2], 3, 5)
    assert drawn.shape == (2, 1, 3, 5) and set(drawn.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(drawn, model.sample(z[:2], 3, 5, seed=0))


@torch.no_grad()
def test_given_the_latent_the_probabilities_of_all_images_add_up_to_one():
    model = AutoregressiveVAE(replace(BLACK_AND_WHITE, conditioning="bias"))
    every = ((torch.arange(16)[:, None] >> torch.arange(4)) & 1).float().view(16, 1, 2, 2)
    z = torch.randn(1, 2, 3, 3).expand(16, -1, -1, -1)
    assert float(model.distortion(every, z)["distortion"].neg().exp().sum()) == pytest.approx(1, rel=1e-5)


def test_weights_without_a_latent_are_a_head_start_for_those_with_one():
    alone = AutoregressiveVAE(replace(BLACK_AND_WHITE, conditioning="none", seed=1))
    told = AutoregressiveVAE(replace(BLACK_AND_WHITE, conditioning="last"))
    missing, unexpected = told.load_state_dict(alone.state_dict(), strict=False)
    assert missing == ["decoder.stack.layers.1.condition.weight"] and unexpected == []


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_a_codebook_starts_once_from_data_and_encode_moves_nothing(pixels, update):
    model = AutoregressiveVAE(replace(BLACK_AND_WHITE, bottleneck="vq", codebook_update=update))
    states = [snapshot(model)]
    for call in (model.encode, model.initialize, lambda x: model.initialize(x.flip(0)), model.training_step):
        terms = call(pixels)
        states.append(snapshot(model))
    moved = [not same_bits(before, after) for before, after in itertools.pairwise(states)]
    assert moved == [False, True, False, True] and model.training
    terms["total_loss"].backward()
    assert (model.latent.vq.codebook.grad is not None) == (update == "gradient")


@torch.no_grad()
def test_latents_have_a_density_and_are_as_frequent_as_they_are_dense():
    """One position of one number, then the second of two, given the first: integrals and cumulative distributions."""
    model, line = LatentPrior(PRIOR, 1), torch.linspace(-40, 40, 8001)
    for p in model.head.parameters():
        p.mul_(3)  # away from a mixture of equal parts
    pair = torch.stack([torch.full_like(line, 2.0), line], 1).view(-1, 1, 1, 2)
    nats = model.nats(pair)
    assert nats[:, 0, 0].std() < 1e-5  # the first knows nothing of the second
    densities = model.nats(line.view(-1, 1, 1, 1)).flatten().neg().exp(), nats[:, 0, 1].neg().exp()
    start, given = torch.tensor([2.0, 0.0]).expand(4000, 1, 1, 2), torch.tensor([True, False]).expand(4000, 1, 2)
    second = model.fill(start, given, lambda outputs, i, j: model.mixture(outputs).sample())
    drawn = model.sample(4000, 1, 1, seed=1)[:, 0, 0, 0], second[:, 0, 0, 1]
    for p, values in zip(densities, drawn, strict=True):
        assert float(torch.trapezoid(p, line)) == pytest.approx(1, abs=1e-3)
        below = torch.cumulative_trapezoid(p, line)[(values[:, None] > line[1:]).sum(1).clamp(max=len(line) - 2)]
        expected = (torch.arange(4000) + 0.5) / 4000
        assert float((below.sort().values - expected).abs().max()) < 0.031  # Kolmogorov: once in a thousand seeds


@pytest.mark.parametrize("stack", ["gated", "masked"])
@torch.no_grad()
def test_latents_drawn_row_by_row_are_those_that_whole_passes_draw(stack):
    model = LatentPrior(replace(PRIOR, stack=stack, num_classes=3), 2)
    labels, before = torch.tensor([0, 2, 1]), torch.get_rng_state()
    drawn = model.sample(3, 4, 5, labels, seed=np.int64(7))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(7)
    grid = torch.zeros(3, 2, 4, 5)
    for i, j in itertools.product(range(4), range(5)):
        grid[:, :, i, j] = model.mixture(model(grid, labels)[:, :, i, j]).sample()
    torch.testing.assert_close(drawn, grid, rtol=0, atol=1e-5)


def test_under_the_standard_normal_the_rate_is_the_kl():
    """A mixture whose parts are all N(0, I) is the standard prior: the rate it gives is the KL that the VAE counts."""
    model = LatentPrior(PRIOR, 3).requires_grad_(False)
    torch.nn.init.zeros_(model.head[-1].weight)
    torch.nn.init.zeros_(model.head[-1].bias)
    mean, log_variance = (value.float() for value in moments(20_000, 3, 3, 3))
    numbers = model.summarize(model.training_step(torch.cat([mean, log_variance], 1)))
    kl = gaussian_kl(mean, log_variance).sum((1, 2, 3)).mean() / math.log(2)
    assert numbers["bits_per_image"] == pytest.approx(float(kl), rel=0.01)
    # The loss is the cost of z itself, per number: what the rate is before the entropy of q is taken off.
    entropy = float((log_variance + math.log(2 * math.pi * math.e)).sum((1, 2, 3)).mean()) / 2
    assert numbers["total_loss"] == pytest.approx((numbers["bits_per_image"] * math.log(2) + entropy) / 27, rel=1e-5)


@latents
def test_the_trainer_teaches_it_and_a_learned_prior_costs_less_than_the_standard_one(digits, latent):
    config = replace(SMALL, latent=latent, lr=1e-2)
    loader, test = BatchLoader(digits, 32, shuffle=True, drop_last=True), BatchLoader(digits, 100)
    trainer, untrained = Trainer(VAE(config), config), Trainer(VAE(config), config).evaluate(test)
    trainer.fit(loader, steps=30)
    trained = trainer.evaluate(test)
    assert trained["elbo"] > untrained["elbo"] and trained["mse"] < 0.8 * untrained["mse"]
    assert trainer.evaluate(test) == trained  # for the same draws
    prior = Trainer(LatentPrior(PRIOR, 2), PRIOR)
    prior.fit(create_code_loader(PRIOR, trainer.model, digits), steps=60)
    learned = prior.evaluate(create_code_loader(PRIOR, trainer.model, digits, train=False))["bits_per_image"]
    assert learned < trained["rate"]
    side = 7 if latent == "grid" else 1
    assert trainer.model.decode(prior.model.sample(3, side, side)).shape == (3, 1, 28, 28)


@models
def test_weights_are_a_function_of_the_seed_learn_and_lie_as_files_want_them(make, monkeypatch):
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("seeds all devices"))
    model = make()
    torch.rand(3)
    assert same_bits(make().state_dict(), model.state_dict())
    model.training_step(batch_for(model))["total_loss"].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert all(value.is_contiguous() for value in model.state_dict().values())


@models
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_any_precision_and_devices_without_float64_or_with_values_that_are_slow_to_read_serve(make, dtype):
    model = make().to(dtype)
    x = batch_for(model).to(dtype)
    with NoFloat64() if dtype != torch.float64 else nullcontext():
        numbers = model.summarize(torch.no_grad()(model.training_step)(x))
    assert all(map(math.isfinite, numbers.values()))
    assert model.to("meta").training_step(x.to("meta"))["total_loss"].is_meta  # there are no values to read


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *itertools.product(("latent_dim", "grid_side", "decoder_dim", "decoder_layers"), (0, 1.5, True)),
        *itertools.product(["kl_weight"], (-1, math.inf, math.nan, "1")),
        *itertools.product(["variance"], (0, -0.1, math.nan)),
        *{"bottleneck": "VQ", "latent": "image", "conditioning": "first", "lr": 0, "hidden_dim": 7}.items(),
    ],
)
def test_a_bad_choice_raises_naming_field_and_value(name, value):
    with pytest.raises(ValueError, match=f"^{name} = {re.escape(repr(value))}[ :]"):
        VAEConfig(**{name: value})


def test_the_least_that_is_possible_is_taken():
    least = VAEConfig(latent_dim=np.int64(1), decoder_dim=1, decoder_layers=1, kl_weight=0, variance=np.float64(1e-9))
    assert (type(least.latent_dim), type(least.variance), least.kl_weight) == (int, float, 0)
    assert AutoregressiveVAE(least).encode(torch.zeros(1, 1, 4, 4)).shape == (1, 2, 1, 1)


AR = AutoregressiveVAE
GRAY, SMALLER = torch.full((1, 1, 28, 28), 0.5), torch.zeros(2, 1, 16, 28)


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: VAE(SMALL).encode(torch.zeros(2, 3, 28, 28)), "x"),
        (lambda: VAE(SMALL).training_step(torch.zeros(28, 28)), "x"),
        (lambda: VAE(SMALL).encode(torch.zeros(2, 1, 30, 30)), "x"),
        (lambda: VAE(SMALL).encode(torch.zeros(2, 1, 28, 28).double()), "x"),
        (lambda: VAE(replace(SMALL, latent="vector")).encode(SMALLER), "grid_side = 7"),
        (lambda: AR(replace(SMALL, conditioning="bias")).training_step(SMALLER), "grid_side = 7"),
        (lambda: AR(replace(SMALL, conditioning="last")).training_step(SMALLER), "grid_side = 7"),
        (lambda: VAE(replace(SMALL, bottleneck="vq")), "bottleneck = 'vq'"),
        (lambda: AR(replace(SMALL, in_channels=3)), "in_channels = 3"),
        (lambda: AR(SMALL).training_step(GRAY), "x"),
        (lambda: AR(SMALL).initialize(GRAY), "x"),
        (lambda: LatentPrior(PRIOR, 2).training_step(torch.zeros(1, 3, 7, 7)), "x"),
        *((lambda costs=costs: latent_usage(costs), "swap_costs") for costs in ([], [math.nan], [2.0, math.inf])),
    ],
)
def test_bad_input_raises(call, names):
    with pytest.raises(ValueError, match=rf"\b{names}[ :]"):
        call()


@pytest.mark.parametrize("usage", ["used", "weak", "collapsed"])
def test_the_usage_of_a_latent_is_that_of_all_seeds_or_said_to_differ(usage):
    costs = {"used": [1.01, 30.0], "weak": [0.25, 1.0], "collapsed": [0.0, 0.24, -0.1]}
    assert latent_usage(costs.pop(usage)) == usage
    assert latent_usage([values[0] for values in costs.values()]) == "varies across seeds"
