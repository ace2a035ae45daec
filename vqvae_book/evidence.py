"""Numbers that the claims page judges, read from stored runs and studies."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np

from vqvae_lib.metrics import normalized_mse

from .results import Result
from .verdicts import compared

Groups = Mapping[float, Sequence[Result]]  # a setting -> its studies, one per seed
NEAR = 2.0  # bits: lines between few points are off by as much
FIRSTS = {  # which part learns first, in words and in the studies of collapse
    "decoder first": "the decoder",
    "together": "neither",
    "latent first": "the latent",
}


def numbers(results: Sequence[Result], name: str = "MSE") -> list[float]:
    """Return one number of each result, by default the test error."""
    return [result.numbers[name] for result in results]


def lost(runs: Sequence[Result]) -> list[float]:
    """Return the share of the pixels' variance that each run loses."""
    return [normalized_mse(r.numbers["MSE"], r.provenance["variance"]) for r in runs]


def by_beta(
    swept: Mapping[tuple[int, float], Sequence[Result]], low: float, high: float
) -> dict[int, dict[float, list[float]]]:
    """Return a sweep's errors for beta from ``low`` to ``high``: K -> beta -> seeds."""
    found: dict[int, dict[float, list[float]]] = defaultdict(dict)
    for (K, beta), runs in swept.items():
        if low <= beta <= high:
            found[K][beta] = numbers(runs)
    return dict(found)


def grouped(studies: Sequence[Result], setting: str) -> dict[float, list[Result]]:
    """Group studies by one of their settings, in ascending order."""
    groups: dict[float, list[Result]] = defaultdict(list)
    for study in studies:
        groups[study.settings[setting]].append(study)
    return dict(sorted(groups.items()))


def saved_by_prior(studies: Sequence[Result]) -> list[float]:
    """Return the share of the bits at the codes' entropy that each prior saves."""
    pairs = (numbers(studies, "prior bits"), numbers(studies, "entropy bits"))
    return [1 - prior / entropy for prior, entropy in zip(*pairs, strict=True)]


def at_equal_error(vq: Groups, vae: Groups) -> list[tuple[float, list[float]]]:
    """Return bits of VAE minus VQ-VAE at equal error, under learned priors.

    One row for each setting of either model, sorted by the VQ-VAE's mean bits: those
    bits, and a difference per seed. The other model's bits are read off a line through
    its settings of the same seed. Seeds whose error it does not reach are left out, as
    are settings with fewer than two seeds.
    """
    rows = []
    for ours, theirs in ((vq, vae), (vae, vq)):
        for studies in ours.values():
            pairs = [(s.numbers["prior bits"], _bits(s, theirs)) for s in studies]
            if ours is vae:
                pairs = [pair[::-1] for pair in pairs]
            pairs = [pair for pair in pairs if all(map(math.isfinite, pair))]
            if len(pairs) > 1:
                rate = fmean(codes for codes, _ in pairs)
                rows.append((rate, [latent - codes for codes, latent in pairs]))
    return sorted(rows)


def cheaper(bits: Sequence[float], vae: str, vq: str, tie: str) -> str:
    """Say which model is cheaper, given each seed's bits of VAE minus VQ-VAE."""
    return compared(bits, (-NEAR, NEAR), vae, vq, tie)


def _bits(study: Result, theirs: Groups) -> float:
    """Read bits at a study's error off the other model's line, same seed, or NaN."""
    seed = study.settings["seed"]
    points = sorted(
        (peer.numbers["MSE"], peer.numbers["prior bits"])
        for peers in theirs.values()
        for peer in peers
        if peer.settings["seed"] == seed
    )
    xs, ys = zip(*points, strict=True)
    place = math.log(study.numbers["MSE"])
    return float(np.interp(place, np.log(xs), ys, left=math.nan, right=math.nan))


def beyond(studies: Sequence[Result], line: Groups) -> list[float]:
    """Return each study's bits under a prior minus a line's at its error, if finite."""
    found = [study.numbers["prior bits"] - _bits(study, line) for study in studies]
    return [bits for bits in found if math.isfinite(bits)]


def per_dimension(study: Result, price: str, pixels: int = 784) -> float:
    """Return bits per dimension of ``price``, by (9.7)."""
    gaussian = math.log2(2 * math.pi * math.e * study.numbers["MSE"]) / 2
    return math.log2(255) + gaussian + study.numbers[price] / pixels


def best(groups: Groups, price: str) -> float:
    """Return the setting with the lowest mean of bits per dimension."""
    return min(groups, key=lambda key: fmean(_by_seed(groups[key], price).values()))


def gaps(vae: Groups, vae_price: str, vq: Groups, vq_price: str) -> list[float]:
    """Return VAE minus VQ-VAE in bits per dimension, each at its best, per seed."""
    ours = _by_seed(vq[best(vq, vq_price)], vq_price)
    theirs = _by_seed(vae[best(vae, vae_price)], vae_price)
    return [theirs[seed] - ours[seed] for seed in sorted(ours.keys() & theirs.keys())]


def at_edge(groups: Groups, price: str) -> bool:
    """Whether the best setting is the lowest or the highest that was tried."""
    return best(groups, price) in (min(groups), max(groups))


def _by_seed(studies: Sequence[Result], price: str) -> dict[int, float]:
    return {s.settings["seed"]: per_dimension(s, price) for s in studies}


def collapse(
    studies: Sequence[Result], kind: str, number: str
) -> dict[str, list[float]]:
    """Return a number of the collapse studies: part that learns first -> seeds.

    ``kind``: "vq" or "gaussian". ``number``: "rate", "swap" for what a swap of latents
    loses, "saved" for what the latent saves.
    """
    found = {}
    for word, first in FIRSTS.items():
        key = f"{kind}, {first}"
        if all(key in study.numbers for study in studies):
            found[word] = [_nats(study.numbers, key, number) for study in studies]
    return found


def at_rest(studies: Sequence[Result], kind: str) -> dict[str, bool]:
    """Say for each part that may learn first if every study saw the rate at rest.

    At rest: its means over the last two sixths of training differ by at most a tenth
    of the earlier one, or a tenth of a nat. A study without a stored curve never is.
    """
    found = {}
    for word, first in FIRSTS.items():
        key = f"{kind}, {first}"
        if all(key in study.history for study in studies):
            rates = [study.history.get(f"{key}, rate", []) for study in studies]
            found[word] = all(map(_still, rates))
    return found


def _still(rates: Sequence[float]) -> bool:
    part = len(rates) // 6
    if part == 0:
        return False
    earlier, later = fmean(rates[-2 * part : -part]), fmean(rates[-part:])
    return abs(later - earlier) <= max(earlier, 1.0) / 10


def _nats(stored: Mapping, key: str, number: str) -> float:
    part = stored[key]
    losses = {
        "rate": part["rate"],
        "swap": part["swapped"] - part["right"],
        "saved": stored["blind decoder"] - part["right"],
    }
    return losses[number]


def origins(results: Sequence[Result]) -> str:
    """Say how many results there are, and with what and when they were made."""
    facts = [[r.provenance[x] for x in ("torch", "precision", "date")] for r in results]
    made = {f"torch {', '.join(of).replace('torch.', '')}" for of in facts}
    return f"{len(results)}, with {'; '.join(sorted(made))}."
