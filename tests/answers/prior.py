"""Answers to the exercises of chapter 8."""

import math

import torch


def leaks(stack, channels, side=5, own=True, rows=True):
    x = torch.randn(1, channels, side, side, requires_grad=True)
    outputs = stack(x).sum(dim=(0, 1)).flatten()
    for i, y in enumerate(outputs):
        seen = torch.autograd.grad(y, x, retain_graph=True)[0].abs().sum(dim=(0, 1)).flatten() > 0
        end = len(outputs) if rows else (i // side + 1) * side
        if seen[i if own else i + 1 : end].any():
            return True
    return False


def encoded(weights, codes, cut_short=0, turned=False):
    low, width = 0, 1
    for row, k in zip(weights, codes, strict=True):
        below = row[k + 1 :] if turned else row[:k]
        low, width = (low << 16) + width * sum(below), width * row[k]
    places = 16 * len(codes)
    cut = next(cut for cut in range(places, -1, -1) if -(-low >> cut) << cut < low + width)
    cut = max(0, cut - cut_short)
    return f"{-(-low >> cut):0{places - cut}b}" if places > cut else ""


def choose(distances, logits, rate, scale=1.0):
    return (distances - scale * rate * logits.log_softmax(dim=1)).argmin(dim=1)


RIGHT = {
    "8.1": [8.022],
    "8.2": [leaks],
    "8.3": [encoded],
    "8.4": [75],
    "8.6": [choose, lambda *case: choose(*case).tolist()],
}
WRONG = {
    "8.1": [5, 5.56, 0.786, 8.276],
    "8.2": [
        lambda *case: leaks(*case, own=False),
        lambda *case: leaks(*case, rows=False),
        lambda *case: True,
        lambda *case: False,
    ],
    "8.3": [
        lambda *case: encoded(*case, cut_short=9),
        lambda *case: encoded(*case, turned=True),
        lambda *case: encoded(*case)[:-1],
        lambda *case: encoded(*case) + "0",
        lambda *case: int(encoded(*case), 2),
    ],
    "8.4": [0, 175, 15, 60],
    "8.6": [
        lambda d, logits, rate: d.argmin(dim=1),
        lambda *case: choose(*case, scale=-1),
        lambda *case: choose(*case, scale=1 / math.log(2)),
        lambda d, logits, rate: (d - rate * logits).argmax(dim=1),
    ],
}
