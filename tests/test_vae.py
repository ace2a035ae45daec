"""The VAE: the KL against torch's and against samples, bounds in their order, gradients, and both kinds of latent."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import fields, replace

import pytest
import torch
from helpers import same_bits
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from vqvae_lib import (
    VAE,
    AutoregressiveVAE,
    BatchLoader,
    ImageDataset,
    LatentPrior,
    PriorConfig,
    Trainer,
    VAEConfig,
    binarised,
    create_code_loader,
    fate,
    gaussian_kl,
    reparameterise,
)
from vqvae_lib.stored import stored_studies

SMALL = VAEConfig(
    hidden_dim=8, embedding_dim=4, latent_dim=2, num_embeddings=8, decoder_dim=8, batch_size=32, device="cpu"
)
BLACK_AND_WHITE = replace(SMALL, grid_side=3, decoder_layers=2)
PRIOR = PriorConfig(num_embeddings=3, hidden_dim=8, layers=2, batch_size=32, lr=1e-2, device="cpu", precision="float32")
latents = pytest.mark.parametrize("latent", ["grid", "vector"])
bottlenecks = pytest.mark.parametrize("bottleneck", ["gaussian", "vq"])
feedings = pytest.mark.parametrize("feeding", ["map", "bias", "last", "none"])


@pytest.fixture
def images(digits) -> Tensor:
    return digits.floats(slice(0, 16))


@pytest.fixture
def pixels(digits) -> Tensor:
    return binarised(digits).tensors[0][:16]


def moments(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(2))


# --- the Gaussian -----------------------------------------------------------------------------------------------------


def test_the_kl_is_torchs():
    mean, log_variance = moments(50, 7)
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(gaussian_kl(mean, log_variance), expected, rtol=1e-12, atol=1e-12)
    assert gaussian_kl(torch.zeros(3), torch.zeros(3)).tolist() == [0, 0, 0]


def test_the_kl_is_what_samples_say():
    torch.manual_seed(0)
    mean, log_variance = moments(4)
    z = reparameterise(mean.expand(100_000, -1), log_variance.expand(100_000, -1))
    ratio = Normal(mean, (log_variance / 2).exp()).log_prob(z) - Normal(0.0, 1.0).log_prob(z)
    error = ratio.std(0) / math.sqrt(len(z))
    assert ((ratio.mean(0) - gaussian_kl(mean, log_variance)).abs() < 4 * error).all()


def test_reparameterised_draws_have_the_moments_and_hand_on_the_gradient():
    torch.manual_seed(0)
    mean, log_variance = (value.expand(100_000, 3).clone().requires_grad_() for value in moments(3))
    z = reparameterise(mean, log_variance)
    torch.testing.assert_close(z.mean(0), mean[0], rtol=0, atol=0.03)
    torch.testing.assert_close(z.var(0).log(), log_variance[0], rtol=0, atol=0.03)
    z.sum().backward()
    assert (mean.grad == 1).all()
    torch.testing.assert_close(log_variance.grad, (z - mean).detach() / 2)  # d/dv of exp(v / 2) noise


# --- the VAE ----------------------------------------------------------------------------------------------------------


@latents
def test_shapes(images, latent):
    model = VAE(replace(SMALL, latent=latent))
    side = 7 if latent == "grid" else 1
    assert model.encode(images).shape == (16, 4, side, side)
    assert model.latent(images).shape == model.kl(images).shape == (16, 2, side, side)
    x_recon = model(images)
    assert x_recon.shape == images.shape and 0 <= x_recon.min() <= x_recon.max() <= 1


@pytest.mark.parametrize("kind", [VAE, AutoregressiveVAE])
def test_the_weights_are_a_function_of_the_seed_alone(kind):
    made = []
    for at_large, seed in ((1, 3), (2, 3), (1, 4)):
        torch.manual_seed(at_large)
        made.append(kind(replace(BLACK_AND_WHITE, seed=seed)).state_dict())
    assert same_bits(made[0], made[1]) and not same_bits(made[0], made[2])


def test_a_learned_priors_weights_are_a_function_of_the_seed_alone():
    one = LatentPrior(PRIOR, 2)
    torch.rand(3)
    assert same_bits(LatentPrior(PRIOR, 2).state_dict(), one.state_dict())


@latents
@torch.no_grad()
def test_one_image_is_batch_enough(images, latent):
    model = VAE(replace(SMALL, latent=latent, latent_dim=3))
    numbers = model.summarise(model.training_step(images[:1]))
    assert all(map(math.isfinite, numbers.values()))
    assert model.bound(images[:1]).shape == (1,)


def test_a_grid_follows_the_image_and_a_vector_wants_its_own_size():
    model = VAE(SMALL)
    assert model.encode(torch.zeros(2, 1, 32, 20)).shape == (2, 4, 8, 5)
    vector = VAE(replace(SMALL, latent="vector", grid_side=2))
    assert vector.encode(torch.zeros(2, 1, 8, 8)).shape == (2, 4, 1, 1)
    with pytest.raises(ValueError, match=r"grid_side = 2: .*\(2, 3\)"):
        vector.encode(torch.zeros(2, 1, 8, 12))


def test_a_number_that_carries_just_the_bound_is_not_active():
    with torch.no_grad():
        terms = VAE(SMALL).training_step(torch.rand(2, 1, 28, 28))
    terms["kl_per_number"] = torch.tensor([0.0, 0.01, 0.011, 2.0])
    assert VAE(SMALL).summarise(terms)["active"] == 2


@latents
@torch.no_grad()
def test_the_numbers_are_those_of_the_equation(images, latent):
    config = replace(SMALL, latent=latent, kl_weight=0.3, variance=0.05)
    model = VAE(config).eval()
    torch.manual_seed(1)
    numbers = model.summarise(model.training_step(images))
    torch.manual_seed(1)
    x_recon, kl = model(images), model.kl(images).flatten(1).sum(1).mean()
    nats = -Normal(x_recon.double(), math.sqrt(0.05)).log_prob(images.double()).flatten(1).sum(1).mean()
    expected = {
        "distortion": nats,
        "mse": (x_recon - images).square().mean(),
        "rate": kl / math.log(2),
        "elbo": -nats - kl,
        "elbo_bits": (-nats - kl) / math.log(2),
        "total_loss": (nats + 0.3 * kl) / 784,
    }
    assert numbers == pytest.approx(
        {**{k: float(v) for k, v in expected.items()}, "active": numbers["active"]}, rel=1e-4
    )
    assert numbers["active"] == (model.kl(images).mean(0) > 0.01).sum()


@latents
def test_more_samples_come_closer_from_below(images, latent):
    """The mean ELBO is at most the importance-weighted bound, and the bound of one sample is the ELBO."""
    model = VAE(replace(SMALL, latent=latent, variance=1.0)).eval()
    torch.nn.init.constant_(model.to_latent.bias[2:], -4)  # a posterior far from the prior
    torch.manual_seed(0)
    single = torch.stack([model.bound(images) for _ in range(100)])
    elbo = -model.distortion(images, model.latent(images))["distortion"].mean() - model.kl(images).sum((1, 2, 3)).mean()
    assert float(single.mean()) == pytest.approx(float(elbo.detach()), abs=5 * float(single.mean(1).std()))
    for first, more in ((1, 5), (5, 50)):  # of the same draws: Jensen's inequality, whatever was drawn
        few = single.unflatten(0, (-1, first)).logsumexp(1) - math.log(first)
        many = single.unflatten(0, (-1, more)).logsumexp(1) - math.log(more)
        assert (many.mean(0) >= few.mean(0) - 1e-3).all()
    torch.manual_seed(0)
    torch.testing.assert_close(model.bound(images, 100), single.logsumexp(0) - math.log(100))


@latents
def test_every_weight_learns(images, latent):
    model = VAE(replace(SMALL, latent=latent))
    model.training_step(images)["total_loss"].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_without_weight_the_kl_has_no_part_in_the_loss(images):
    grads = {}
    for weight in (0, 1.0):
        model = VAE(replace(SMALL, kl_weight=weight))
        torch.manual_seed(0)
        terms = model.training_step(images)
        terms["total_loss"].backward()
        grads[weight] = model.to_latent.weight.grad
        if weight == 0:
            torch.testing.assert_close(terms["total_loss"], terms["distortion"] / 784)
            assert terms["rate"] > 0
    assert not torch.allclose(grads[0], grads[1.0])


def test_the_decoder_starts_at_the_mean_once_and_remembers_it(images):
    model, other = VAE(SMALL), VAE(SMALL)
    model.training_step(images)
    bias = model.decoder[1].net[-2].bias
    torch.testing.assert_close(bias.sigmoid()[0], images.mean())
    other.load_state_dict(model.state_dict())
    other.training_step(1 - images)
    assert torch.equal(other.decoder[1].net[-2].bias, bias)


def test_an_estimate_of_the_bound_moves_nothing_in_training_mode_either(images):
    model = VAE(SMALL).train()
    before = [value.clone() for value in (*model.parameters(), *model.buffers())]
    model.bound(images)
    assert same_bits([*model.parameters(), *model.buffers()], before)
    assert model.training
    assert not model.started


@latents
def test_the_trainer_trains_it_the_same_bits_for_the_same_seed(digits, latent):
    config = replace(SMALL, latent=latent, lr=1e-2)

    def run() -> Trainer:
        trainer = Trainer(VAE(config), config)
        trainer.fit(BatchLoader(digits, 32, shuffle=True, drop_last=True), steps=30)
        return trainer

    trainer, test = run(), BatchLoader(digits, 100)
    untrained = Trainer(VAE(config), config).evaluate(test)
    trained = trainer.evaluate(test)
    assert trained["elbo"] > untrained["elbo"]
    assert trained["mse"] < 0.8 * untrained["mse"]
    assert trainer.evaluate(test) == trained
    assert same_bits(trainer.model.state_dict(), run().model.state_dict())


# --- the autoregressive decoder ---------------------------------------------------------------------------------------


def test_binarised_images_are_black_or_white(digits):
    values, labels = binarised(digits, 14).tensors
    assert values.shape == (400, 1, 14, 14) and set(values.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(labels, digits.labels)
    blocks = digits.floats().unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))
    clear = (blocks - 0.5).abs() > 1e-4
    assert torch.equal(values[clear], (blocks > 0.5).float()[clear])
    half = ImageDataset(
        torch.tensor([[0, 255], [255, 0]], dtype=torch.uint8).expand(1, 1, 2, 2), torch.zeros(1), "half"
    )
    assert binarised(half, 1).tensors[0].tolist() == [[[[0.0]]]]  # just a half is still black


@feedings
@bottlenecks
@latents
@torch.no_grad()
def test_both_latents_are_fed_in_the_same_way(pixels, bottleneck, feeding, latent):
    model = AutoregressiveVAE(replace(BLACK_AND_WHITE, bottleneck=bottleneck, feeding=feeding, latent=latent))
    model.training_step(pixels)  # a codebook starts with its first batch
    model.eval()
    side = 3 if latent == "grid" else 1
    z = model.latent(pixels)
    assert z.shape == (16, 2, side, side)
    assert model(pixels).shape == (16, 2, 14, 14)
    other = AutoregressiveVAE(replace(BLACK_AND_WHITE, bottleneck="gaussian", feeding=feeding, latent=latent))
    shapes = [{name: p.shape for name, p in m.decoder.named_parameters()} for m in (model, other)]
    assert shapes[0] == shapes[1]
    numbers = model.summarise(model.training_step(pixels))
    if bottleneck == "vq":
        assert numbers["rate"] == pytest.approx(side**2 * 3)  # log2 of 8 codes
        assert model.encode(pixels).shape == (16, side, side)
        torch.testing.assert_close(z, model.vq.lookup(model.encode(pixels)))
    assert numbers["elbo"] == pytest.approx(-numbers["distortion"] - numbers["rate"] * math.log(2), rel=1e-5)
    swapped = model.distortion(pixels, z.roll(1, 0))["distortion"] - model.distortion(pixels, z)["distortion"]
    assert bool(swapped.any()) == (feeding != "none")
    drawn = model.draw(z[:2], 3, 5)
    assert set(drawn.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(drawn, model.draw(z[:2], 3, 5, seed=0))


@torch.no_grad()
def test_given_the_latent_the_probabilities_of_all_images_add_up_to_one():
    model = AutoregressiveVAE(replace(BLACK_AND_WHITE, feeding="bias")).eval()
    every = ((torch.arange(16)[:, None] >> torch.arange(4)) & 1).float().view(16, 1, 2, 2)
    z = torch.randn(1, 2, 3, 3).expand(16, -1, -1, -1)
    assert float(model.distortion(every, z)["distortion"].neg().exp().sum()) == pytest.approx(1, rel=1e-5)


@feedings
@bottlenecks
@torch.no_grad()
def test_an_autoregressive_decoder_takes_one_image(pixels, bottleneck, feeding):
    model = AutoregressiveVAE(replace(BLACK_AND_WHITE, bottleneck=bottleneck, feeding=feeding))
    numbers = model.summarise(model.training_step(pixels[:1]))
    assert all(map(math.isfinite, numbers.values()))


@pytest.mark.parametrize("feeding", ["map", "bias", "last"])
def test_the_likelihood_reaches_the_encoder_through_the_latent(pixels, feeding):
    model = AutoregressiveVAE(replace(BLACK_AND_WHITE, feeding=feeding, kl_weight=0))
    model.training_step(pixels)["total_loss"].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_weights_without_a_latent_are_a_head_start_for_those_with_one(pixels):
    alone = AutoregressiveVAE(replace(BLACK_AND_WHITE, feeding="none", seed=1))
    fed = AutoregressiveVAE(replace(BLACK_AND_WHITE, feeding="last"))
    missing, unexpected = fed.load_state_dict(alone.state_dict(), strict=False)
    assert missing == ["decoder.stack.layers.1.condition.weight"] and unexpected == []


@bottlenecks
def test_encode_never_moves_a_codebook(pixels, bottleneck):
    model = AutoregressiveVAE(replace(BLACK_AND_WHITE, bottleneck=bottleneck)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.encode(pixels)
    assert same_bits(model.state_dict(), before) and model.training


# --- the learned prior of latents -------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_prior_is_a_density():
    """Over one position of one number the density integrates to 1; over two, the second follows the first."""
    model = LatentPrior(PRIOR, 1).eval()
    line = torch.linspace(-40, 40, 4001)
    density = model.nats(line.view(-1, 1, 1, 1)).flatten().neg().exp()
    assert float(torch.trapezoid(density, line)) == pytest.approx(1, abs=1e-3)
    pair = torch.stack([torch.full_like(line, 2.0), line], 1).view(-1, 1, 1, 2)
    nats = model.nats(pair)
    assert float(torch.trapezoid(nats[:, 0, 1].neg().exp(), line)) == pytest.approx(1, abs=1e-3)
    assert nats[:, 0, 0].std() < 1e-5


@latents
def test_a_learned_prior_costs_less_than_the_standard_one(digits, latent):
    config = replace(SMALL, latent=latent, lr=1e-2)
    trainer = Trainer(VAE(config), config)
    trainer.fit(BatchLoader(digits, 32, shuffle=True, drop_last=True), steps=30)
    standard = trainer.evaluate(BatchLoader(digits, 100))["rate"]
    prior = Trainer(LatentPrior(PRIOR, 2), PRIOR)
    prior.fit(create_code_loader(PRIOR, trainer.model, digits), steps=60)
    learned = prior.evaluate(create_code_loader(PRIOR, trainer.model, digits, train=False))["bits_per_image"]
    assert learned < standard
    side = 7 if latent == "grid" else 1
    z = prior.model.sample(3, side, side, seed=1)
    assert torch.equal(z, prior.model.sample(3, side, side, seed=1))
    assert trainer.model.decode(z).shape == (3, 1, 28, 28)


@pytest.mark.parametrize("stack", ["gated", "masked"])
@torch.no_grad()
def test_latents_drawn_row_by_row_are_those_that_whole_passes_draw(stack):
    model = LatentPrior(replace(PRIOR, stack=stack), 2).eval()
    drawn = model.sample(3, 4, 5, seed=7)
    torch.manual_seed(7)
    grid = torch.zeros(3, 2, 4, 5)
    for i, j in itertools.product(range(4), range(5)):
        grid[:, :, i, j] = model._mixture(model(grid)[:, :, i, j]).sample()
    torch.testing.assert_close(drawn, grid, rtol=0, atol=1e-5)


def test_latents_are_as_frequent_as_they_are_dense():
    """Of the first number drawn and of the second, given a first one: the distance of their two distributions."""
    model = LatentPrior(PRIOR, 1).eval()
    with torch.no_grad():
        for p in model.head.parameters():
            p.mul_(3)  # away from a mixture of equal parts
        line = torch.linspace(-40, 40, 8001)
        first = model.sample(4000, 1, 1, seed=1)[:, 0, 0, 0]
        density = model.nats(line.view(-1, 1, 1, 1)).flatten().neg().exp()
        pair = torch.stack([torch.full_like(line, 2.0), line], 1).view(-1, 1, 1, 2)
        following = model.nats(pair)[:, 0, 1].neg().exp()
        given = torch.tensor([[True, False]]).expand(4000, 1, 1, 2)
        start = torch.tensor([2.0, 0.0]).expand(4000, 1, 1, 2)
        torch.manual_seed(2)
        second = model._fill(start, given[:, 0], None, lambda outputs, i, j: model._mixture(outputs).sample())[
            :, 0, 0, 1
        ]
    for values, p in ((first, density), (second, following)):
        below = torch.cumulative_trapezoid(p, line)[(values[:, None] > line[1:]).sum(1).clamp(max=len(line) - 2)]
        expected = (torch.arange(4000) + 0.5) / 4000
        assert float((below.sort().values - expected).abs().max()) < 0.031  # Kolmogorov: once in a thousand seeds


def test_under_the_standard_normal_the_rate_is_the_kl():
    """A mixture whose parts are all N(0, I) is the standard prior: the rate it gives is the KL that the VAE counts."""
    model = LatentPrior(PRIOR, 3)
    torch.nn.init.zeros_(model.head[-1].weight)
    torch.nn.init.zeros_(model.head[-1].bias)
    mean, log_variance = (value.float() for value in moments(20_000, 3, 3, 3))
    torch.manual_seed(0)
    step = torch.no_grad()(model.training_step)
    numbers = step(torch.cat([mean, log_variance], 1))
    expected = gaussian_kl(mean, log_variance).sum((1, 2, 3)).mean() / math.log(2)
    assert float(numbers["bits_per_image"]) == pytest.approx(float(expected), rel=0.01)
    # The loss is the cost of z itself, a number: what the rate is before the entropy of q is taken off.
    entropy = (log_variance + math.log(2 * math.pi * math.e)).sum((1, 2, 3)).mean() / 2
    cost = numbers["bits_per_image"] * math.log(2) + entropy
    torch.testing.assert_close(numbers["total_loss"], cost / 27)
    assert all(value.isfinite() for value in step(torch.zeros(1, 6, 3, 3)).values())  # one image is batch enough


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            (name, value)
            for name in ("latent_dim", "grid_side", "decoder_dim", "decoder_layers")
            for value in (0, 1.5, True)
        ),
        *(("kl_weight", value) for value in (-1, math.inf, math.nan, "1")),
        *(("variance", value) for value in (0, -0.1, math.nan)),
        ("bottleneck", "VQ"),
        ("latent", "image"),
        ("feeding", "first"),
        ("lr", 0),
        ("hidden_dim", 7),
    ],
)
def test_a_bad_choice_raises_naming_field_and_value(name, value):
    with pytest.raises(ValueError, match=f"^{name} = {re.escape(repr(value))} "):
        VAEConfig(**{name: value})


def test_the_least_that_is_possible_is_taken():
    least = VAEConfig(latent_dim=1, grid_side=1, decoder_dim=1, decoder_layers=1, kl_weight=0, variance=1e-9)
    assert (least.latent_dim, least.kl_weight) == (1, 0)


def test_the_stored_studies_were_made_with_the_defaults():
    studies = stored_studies("vae-")
    for study in studies:
        config = VAEConfig(variance=study.settings["variance"], seed=study.settings["seed"], device="cpu")
        assert study.settings["vae"] == {name: value for name, value in vars(config).items() if name != "device"}
    assert studies


def test_every_field_is_documented():
    own = [f.name for f in fields(VAEConfig) if f.name in VAEConfig.__annotations__]
    assert [name for name in own if name not in VAEConfig.__doc__] == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: VAE(SMALL).encode(torch.zeros(2, 3, 28, 28)), r"\(2, 3, 28, 28\): expected \(B, 1, H, W\)"),
        (lambda: VAE(SMALL).training_step(torch.zeros(28, 28)), r"\(28, 28\): expected \(B, 1, H, W\)"),
        (lambda: VAE(SMALL).encode(torch.zeros(2, 1, 30, 30)), r"\(2, 1, 30, 30\): .*multiples of 4"),
        (
            lambda: AutoregressiveVAE(replace(SMALL, feeding="bias")).training_step(torch.zeros(2, 1, 16, 16)),
            r"grid_side = 7: .*\(4, 4\)",
        ),
        (
            lambda: AutoregressiveVAE(replace(SMALL, feeding="last")).training_step(torch.zeros(2, 1, 16, 16)),
            r"grid_side = 7: .*\(4, 4\)",
        ),
        (lambda: VAE(replace(SMALL, latent="vector")).encode(torch.zeros(2, 1, 32, 32)), r"grid_side = 7: .*\(8, 8\)"),
        (lambda: VAE(replace(SMALL, bottleneck="vq")), "bottleneck = 'vq' .*take VQVAE"),
        (lambda: AutoregressiveVAE(replace(SMALL, in_channels=3)), "in_channels = 3"),
        (
            lambda: AutoregressiveVAE(SMALL).training_step(torch.full((1, 1, 28, 28), 0.5)),
            "neither 0 nor 1: .*binarised",
        ),
        (lambda: AutoregressiveVAE(replace(SMALL, bottleneck="vq")).kl(torch.zeros(1, 1, 28, 28)), "bottleneck = 'vq'"),
        (
            lambda: LatentPrior(PRIOR, 2).nats(torch.zeros(1, 4, 7, 7)),
            r"\(1, 4, 7, 7\): expected floats \(B, 2, H, W\)",
        ),
        (
            lambda: LatentPrior(PRIOR, 2).training_step(torch.zeros(1, 2, 7, 7)),
            r"\(1, 1, 7, 7\): expected .*of 4 channels",
        ),
    ],
)
def test_bad_input_raises(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        ([1.01, 30.0], "used"),
        ([0.0, 0.24, -0.1], "dead"),
        ([0.25, 1.0], "hardly used"),
        ([1.01, 1.0], "not the same in all seeds"),
        ([0.25, 0.24], "not the same in all seeds"),
    ],
)
def test_the_fate_of_a_latent_is_that_of_all_seeds_or_said_to_differ(costs, expected):
    assert fate(costs) == expected


@pytest.mark.parametrize("costs", [[], [math.nan], [2.0, math.inf]])
def test_no_fate_is_told_from_costs_that_say_nothing(costs):
    with pytest.raises(ValueError, match=r"swap_costs = .*: give one finite number a seed"):
        fate(costs)
