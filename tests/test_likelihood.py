"""Bits of pixels: probabilities first, then the fitted scale, then faults."""

import math

import pytest
import torch
from helpers import normal
from torch.distributions import Normal, SigmoidTransform, TransformedDistribution, Uniform

from vqvae_book.likelihood import LOG_CDFS, fitted_scale, pixel_bits

LEVELS = torch.arange(256)
MEANS, SCALES = (0.0, 0.3 / 255, 0.5, 0.77, 1.0), (1e-3, 0.02, 1.0)


def density(name: str, mean: float, scale: float) -> torch.distributions.Distribution:
    """The density in float64, by what torch has."""
    mean, scale = torch.tensor([mean, scale], dtype=torch.float64)
    if name == "Gaussian":
        return Normal(mean, scale)
    uniform, moved = Uniform(0 * mean, 1 + 0 * mean), torch.distributions.AffineTransform(mean, scale)
    return TransformedDistribution(uniform, [SigmoidTransform().inv, moved])


@pytest.mark.parametrize("name", LOG_CDFS)
def test_the_256_levels_of_a_pixel_have_the_probabilities_of_their_bins_which_sum_to_one(name):
    edges = (torch.arange(1, 256).double() - 0.5) / 255
    for mean, scale in [(mean, scale) for mean in MEANS for scale in SCALES]:
        p = torch.exp2(-pixel_bits(LEVELS, torch.full((256,), mean, dtype=torch.float64), scale, name))
        assert float(p.sum()) == pytest.approx(1, abs=1e-12)
        below = torch.cat([torch.zeros(1), density(name, mean, scale).cdf(edges), torch.ones(1)])
        torch.testing.assert_close(p, below.diff(), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", LOG_CDFS)
def test_the_farther_from_the_mean_the_more_bits_on_both_sides_alike_and_always_finitely_many(name):
    bits = pixel_bits(LEVELS, torch.full((256,), 0.5), 1e-3, name)
    assert bits.isfinite().all() and bool((bits[128:-1].diff() > 0).all())
    torch.testing.assert_close(bits, bits.flip(0))


def test_fine_bins_cost_what_the_density_says():
    """The formula (9.7) of chapter 9, at the scale whose square is the error."""
    mean, scale = torch.full((200_000,), 0.5), 0.05
    noise = normal(len(mean))
    levels = (255 * (mean + scale * noise)).round().clamp(0, 255).int()
    error = float((levels / 255 - mean).double().square().mean())
    gaussian = math.log2(255) + math.log2(2 * math.pi * math.e * error) / 2
    assert float(pixel_bits(levels, mean, error**0.5, "Gaussian").mean()) == pytest.approx(gaussian, abs=1e-3)


@pytest.mark.parametrize("name", LOG_CDFS)
def test_the_fitted_scale_is_that_of_the_noise_and_its_neighbors_cost_more(name):
    mean, true = torch.rand(20_000), 0.03
    u = torch.rand(len(mean)).double().clamp(1e-6, 1 - 1e-6)
    noise = {"Gaussian": torch.special.ndtri(u), "logistic": u.logit()}[name]
    levels = (255 * (mean + true * noise)).round().clamp(0, 255).to(torch.uint8)
    found = fitted_scale(levels, mean, name)
    assert found == pytest.approx(true, rel=0.03)
    costs = [float(pixel_bits(levels, mean, found * factor, name).mean()) for factor in (0.98, 1, 1.02)]
    assert min(costs) == costs[1]


def test_a_bad_prediction_scale_or_density_is_refused():
    for arguments, match in (
        ((LEVELS, torch.rand(256), 0.0), "scale = 0"),
        ((LEVELS, torch.rand(255), 0.1), "shape of mean"),
        ((LEVELS, torch.rand(256), 0.1, "normal"), "density = 'normal'"),
    ):
        with pytest.raises(ValueError, match=match):
            pixel_bits(*arguments)
