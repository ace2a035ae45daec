"""Answers to the exercises of chapter 9."""

import math

import torch


def gaussian_rate(mean, variance, center, covariance):
    precision, off = covariance.inverse(), mean - center
    quadratic = ((off @ precision) * off).sum(1) + variance @ precision.diagonal()
    twice = covariance.logdet() - variance.log().sum(1) - mean.shape[1] + quadratic
    return float(twice.mean()) / (2 * math.log(2))


def diagonal_only(mean, variance, center, covariance):
    return gaussian_rate(mean, variance, center, covariance.diagonal().diag())


def alive(images, weight, variance):
    return int((torch.linalg.svdvals(images - images.mean(0)) ** 2 / len(images) > weight * variance).sum())


def high_error(x, x_recon):
    frequency = torch.hypot(torch.fft.fftfreq(x.shape[-2])[:, None], torch.fft.fftfreq(x.shape[-1])[None])
    off = torch.fft.fft2(x_recon - x, norm="ortho")[..., frequency > 0.25]
    return off.abs().square().sum() / x.numel()


def swap_costs(z, decode, x):
    def error(latents):
        return (decode(latents) - x).square().sum(dim=(1, 2, 3)).mean()

    costs = torch.zeros(z.shape[-2:])
    for i in range(z.shape[-2]):
        for j in range(z.shape[-1]):
            swapped = z.clone()
            swapped[..., i, j] = z[..., i, j].roll(1, dims=0)
            costs[i, j] = error(swapped) - error(z)
    return costs


RIGHT = {
    "9.1": [0.06],
    "9.2": [gaussian_rate],
    "9.3": [alive],
    "9.4": [high_error],
    "9.5": [swap_costs],
}
WRONG = {
    "9.1": [0.02, 0.02 / 3, 3.0],
    "9.2": [diagonal_only, lambda *prior: gaussian_rate(*prior) * math.log(2)],
    "9.3": [lambda images, weight, variance: alive(images, 1, variance), lambda *_: 0],
    "9.4": [lambda x, x_recon: (x_recon - x).square().mean(), lambda x, x_recon: high_error(0 * x, x_recon)],
    "9.5": [
        lambda z, decode, x: swap_costs(z, decode, x) / 2,
        lambda z, decode, x: (decode(z) - x).square().mean((0, 1)),
    ],
}
