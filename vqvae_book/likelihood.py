"""What pixels of 256 levels cost once a model has predicted them, in bits."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vqvae_lib._util import check_choice, check_number, require

# Both densities are even: what lies above x is as likely as what lies below -x.
LOG_CDFS = {"Gaussian": torch.special.log_ndtr, "logistic": F.logsigmoid}


def pixel_bits(
    levels: Tensor, mean: Tensor, scale: float, density: str = "logistic"
) -> Tensor:
    """Compute -log2 p of pixels whose levels are bins of a density around ``mean``.

    A level has the probability of the half level on either side of it, the levels 0 and
    255 also that of all beyond them, so that the 256 sum to one (Salimans et al. 2017,
    equation 2).

    Args:
        levels: integers in [0, 255], of any shape.
        mean: what the model predicts, in [0, 1], of the same shape.
        scale: in units of [0, 1]; the standard deviation of ``"Gaussian"`` is as large,
            that of ``"logistic"`` 1.81 times as large.

    Returns:
        Bits per pixel and channel, float64, shaped as ``levels``.
    """
    check_choice("density", density, tuple(LOG_CDFS))
    check_number("scale", scale, 0, ends="()")
    shape = tuple(mean.shape)
    require(levels.shape == shape, "shape of mean", shape, f"{tuple(levels.shape)}")
    log_cdf, distance = LOG_CDFS[density], levels.double() - 255 * mean.double()
    low = ((distance - 0.5) / (255 * scale)).where(levels > 0, -math.inf)
    high = ((distance + 0.5) / (255 * scale)).where(levels < 255, math.inf)
    # Above the mean the distribution function is near 1, and differences would be lost.
    above = low + high > 0
    low, high = low.where(~above, -high), high.where(~above, -low)
    most, least = log_cdf(high), log_cdf(low)
    return -(most + (-torch.expm1(least - most)).log()) / math.log(2)


def fitted_scale(levels: Tensor, mean: Tensor, density: str = "logistic") -> float:
    """Find the one scale in [0.001, 1] under which pixels cost the fewest bits.

    The cost has a single minimum in the scale, since both densities are log-concave;
    each round leaves out a third of what is left, down to a thousandth of the scale.
    """

    def cost(place: float) -> float:
        return float(pixel_bits(levels, mean, math.exp(place), density).mean())

    low, high = math.log(1e-3), 0.0
    while high - low > 1e-3:
        third = (high - low) / 3
        if cost(low + third) < cost(high - third):
            high -= third
        else:
            low += third
    return math.exp((low + high) / 2)
