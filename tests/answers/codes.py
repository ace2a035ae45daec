"""Answers to the exercises of chapter 6."""

import math

import torch


def along(codes, center=True):
    centered = codes - center * codes.mean(dim=0)
    return codes @ torch.linalg.svd(centered, full_matrices=False).Vh[0]


def tables(contexts, grids, n, K, extra):
    pairs = torch.bincount((contexts * K + grids).flatten(), minlength=n * K).view(n, K) + extra
    return pairs / pairs.sum(dim=1, keepdim=True)


def above(grids, K):
    return torch.nn.functional.pad(grids, (0, 0, 1, 0), value=K)[:, :-1]


def here(grids):
    return torch.arange(49).view(1, 7, 7).expand_as(grids)


def price(train, test, K, extra=0.1, context=above):
    p = tables(context(train, K), train, K + 1, K, extra)[context(test, K), test]
    return -p.log2().sum(dim=(1, 2)).mean()


def surprise(train, grids, K, extra=0.1, place=here):
    return -tables(place(train), train, 49, K, extra)[place(grids), grids].log2().sum(dim=(1, 2))


RIGHT = {
    "6.1": [[0, 0, 0, 1]],
    "6.2": [lambda codes: along(codes).argsort(), lambda codes: along(codes).argsort(descending=True).tolist()],
    "6.3": [price, lambda *grids: float(price(*grids, extra=1))],
    "6.4": [surprise, lambda *grids: surprise(*grids, extra=1).tolist()],
}
WRONG = {
    "6.1": [[1, 0, 0, 1], [0, 0, 1, 1], [0, 1]],
    "6.2": [lambda codes: along(codes).argsort().argsort(), lambda codes: torch.arange(len(codes)), lambda codes: [0]],
    "6.3": [
        lambda *grids: price(*grids, extra=0),
        lambda *grids: price(*grids, context=lambda grids, K: torch.zeros_like(grids)),
        lambda *grids: price(*grids, context=lambda grids, K: grids),
        lambda *grids: price(*grids, context=lambda grids, K: grids.roll(-1, 1)),
    ],
    "6.4": [
        lambda *grids: surprise(*grids).mean(),
        lambda *grids: surprise(*grids, extra=0),
        lambda *grids: surprise(*grids, place=torch.zeros_like),
        lambda *grids: surprise(*grids) * math.log(2),
    ],
}
