"""Answers to the exercises of chapter 11."""

import math
from statistics import fmean

import torch

from vqvae_book.evidence import lost
from vqvae_book.results import stored_studies

SHARES = [fmean(lost(stored_studies(f"color-fashion-K{K:04d}-"))) for K in (16, 64)]


def bits(levels, mean, scale, tails=True, symmetric=True):
    low, high = ((levels + half - 255 * mean) / (255 * scale) for half in (-0.5, 0.5))
    if tails:
        low, high = torch.where(levels > 0, low, -math.inf), torch.where(levels < 255, high, math.inf)
    side = torch.where((low + high > 0) & symmetric, -1.0, 1.0)
    return -((side * high).sigmoid() - (side * low).sigmoid()).abs().log2()


def table_bits(levels, means, new_levels, new_means, plus=1, nearest=0.5, axis=1):
    rows, new_rows = ((255 * m + nearest).long() for m in (means, new_means))
    counts = plus + torch.bincount(256 * rows + levels, minlength=256**2).view(256, 256).double()
    return -(counts / counts.sum(axis, keepdim=True))[new_rows, new_levels].log2()


RIGHT = {
    "11.1": [[0.015825, 0.01186875], [0.0158, 0.0119]],
    "11.2": [bits],
    "11.3": [table_bits],
    "11.4": [SHARES, [0.9 * share for share in SHARES]],
}
WRONG = {
    "11.1": [[3.949, 2.962], [0.25, 0.1875], [0.0158, 0.0158], [0.0158, 0.003956], [0.0158, 0.0211], [0, 0], 0.0158],
    "11.2": [
        lambda *case: bits(*case, tails=False),
        lambda *case: bits(*case, symmetric=False),
        lambda *case: bits(*case) * math.log(2),
        lambda *case: bits(*case).mean(),
    ],
    "11.3": [
        lambda *case: table_bits(*case, plus=0),
        lambda *case: table_bits(*case, axis=0),
        lambda *case: table_bits(*case, nearest=0.0),
        lambda *case: table_bits(*case, plus=0.5),
        lambda *case: None,
    ],
    "11.4": [*([share * x for share in SHARES] for x in (1.29, 8000, 0.12, 2)), SHARES[::-1], 0.08],
}
