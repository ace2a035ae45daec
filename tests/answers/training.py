"""Answers to the exercises of chapter 5."""

import math
import statistics

import numpy as np
import torch

from vqvae_lib import learning_rate


def one_picture(x, x_recon):
    return (x_recon - x).square().mean() > 0.9 * x.var(dim=0, correction=0).mean()


def against_gray(x, x_recon):  # the rule that misses a collapsed model
    return (x_recon - x).square().mean() > 0.9 * x.var()


def all_equal(x, x_recon):
    return (x_recon.std(dim=0) < 1e-3).all()


def error(values):
    return statistics.stdev(values) / math.sqrt(len(values))


def paired(a, b):
    return error([x - y for x, y in zip(a, b, strict=True)])


def unpaired(a, b):
    return math.hypot(error(a), error(b))


def accumulate(model, x, parts):
    model.vq.eval()
    for part in x.chunk(parts):
        (model.training_step(part)["total_loss"] * len(part) / len(x)).backward()
    model.vq.train()
    with torch.no_grad():
        model.vq(model.encoder(x))


def codes_move_in_each_part(model, x, parts):
    for part in x.chunk(parts):
        (model.training_step(part)["total_loss"] * len(part) / len(x)).backward()


def unweighted(model, x, parts):
    model.vq.eval()
    for part in x.chunk(parts):
        (model.training_step(part)["total_loss"] / parts).backward()
    model.vq.train()
    with torch.no_grad():
        model.vq(model.encoder(x))


RIGHT = {
    "5.1": [learning_rate(0.5, 0.01)],
    "5.2": [one_picture],
    "5.3": [lambda a, b: (paired(a, b), unpaired(a, b)), lambda a, b: np.array([paired(a, b), unpaired(a, b)])],
    "5.4": [accumulate],
    "5.5": [0.9**0.25, 0.974],
}
WRONG = {
    "5.1": [0.01, 0.005, 0.0004, learning_rate(0.3 / 2, 0.01)],
    "5.2": [against_gray, all_equal, lambda x, x_recon: False, lambda x, x_recon: True],
    "5.3": [
        lambda a, b: (unpaired(a, b), paired(a, b)),
        lambda a, b: (paired(a, b),) * 2,
        lambda a, b: 1.0,
        lambda a, b: None,
    ],
    "5.4": [codes_move_in_each_part, unweighted, lambda model, x, parts: None],
    "5.5": [0.9, 0.9**4, 0.975, 0.99],
}
