"""Sentences of chapters 6 and 7 about MNIST, judged on the runs of any dataset.

A judge returns a verdict, "not decided" where seeds differ, and what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from .evidence import lost, numbers
from .results import Result, failed
from .verdicts import compared, ranged, trend, verdict

HOLDS = verdict(True)
WORDS = HOLDS, verdict(False), verdict(None)


class Runs(NamedTuple):
    """Runs on one dataset, one per seed, in the same order of seeds throughout."""

    by_size: Mapping[int, Sequence[Result]]  # K, ascending, 64 among them
    by_beta: Mapping[float, Sequence[Result]]  # beta 0, 0.25 and 4, with 64 codes
    larger: Sequence[Result]  # as those with beta 0.25, with more codes
    measured: Sequence[Result]  # of these the geometry of the codebook is known


def falls(runs: Runs) -> str:
    """Judge whether a larger K lowers the error at every step."""
    courses = zip(*map(lost, runs.by_size.values()), strict=True)
    fell = {trend([course]) == "falls throughout" for course in courses}
    return verdict(fell.pop() if len(fell) == 1 else None)


def fades(runs: Runs) -> str:
    """Judge whether a doubling removes less at the largest sizes than at the least."""
    sizes = list(runs.by_size)
    first, last = _cut(runs, *sizes[:2]), _cut(runs, *sizes[-2:])
    shares = [f"{100 * fmean(part):.0f}%" for part in (first, last)]
    return f"{compared(last, first, *WORDS)}: {shares[0]}, then {shares[1]}"


def in_use(runs: Runs) -> str:
    """Judge whether more than 95% of the largest codebook is used."""
    K = max(runs.by_size)
    shares = [used / K for used in numbers(runs.by_size[K], "active codes")]
    return f"{compared(0.95, shares, *WORDS)}: {_percent(shares)} of {K:,}"


def beta_matters_less(runs: Runs) -> str:
    """Judge whether beta 4 in place of 0.25 changes the error less than the next K."""
    of_beta = _ratios(runs.by_beta[4.0], runs.by_beta[0.25])
    of_size = _ratios(runs.larger, runs.by_beta[0.25])
    moved = [[abs(ratio - 1) for ratio in part] for part in (of_beta, of_size)]
    shares = [f"{100 * fmean(part):.0f}%" for part in moved]
    return f"{compared(*moved, *WORDS)}: {shares[0]} against {shares[1]}"


def beta_pulls(runs: Runs) -> str:
    """Judge whether vectors are nearer to their codes at beta 4 than at 0.25."""
    loose, tight = (_gaps(runs.by_beta[beta], beta) for beta in (0.25, 4.0))
    closer = [a / b for a, b in zip(loose, tight, strict=True)]
    return f"{compared(1.0, closer, *WORDS)}: {ranged(closer, '{:.0f}')} times"


def commitment_helps(runs: Runs) -> str:
    """Judge whether the error is higher without commitment than at beta 0.25."""
    free, usual = lost(runs.by_beta[0.0]), lost(runs.by_beta[0.25])
    broken = sum(map(failed, runs.by_beta[0.0]))
    return f"{compared(usual, free, *WORDS)}; {broken} of {len(free)} failed"


def decoder_hears_more(runs: Runs) -> str:
    """Judge whether the decoder needs more directions than hold 90% of variance."""
    pair = [numbers(runs.measured, name) for name in ("directions", "heard")]
    counts = " and ".join(ranged(part, "{:.0f}") for part in pair)
    return f"{compared(*pair, *WORDS)}: {counts}"


def near_is_alike(runs: Runs) -> str:
    """Judge whether distance and change of the picture correlate above .5 in rank."""
    ranks = numbers(runs.measured, "rank correlation")
    return f"{compared(0.5, ranks, *WORDS)}: {ranged(ranks, '{:.2f}')}"


def no_tiles(runs: Runs) -> str:
    """Judge whether a code fixes less than 90% of the variance of its pixels."""
    shares = numbers(runs.measured, "share fixed")
    return f"{compared(shares, 0.9, *WORDS)}: {_percent(shares)}"


SENTENCES: dict[str, Callable[[Runs], str]] = {
    "A larger K lowers the error at every step (7.2)": falls,
    "A doubling of K removes a smaller share of the error at the end than at first "
    "(7.3)": fades,
    "More than 95% of the largest codebook is used (7.2)": in_use,
    "From K = 64 and β = 0.25, raising β to 4 changes the error less than raising K "
    "does, to 256 (512 on CIFAR-10) (7.4)": beta_matters_less,
    "Vectors are closer to their codes at β = 4 than at 0.25 (times closer, 7.4)": (
        beta_pulls
    ),
    "Without commitment, the error is higher than at β = 0.25 (7.5)": commitment_helps,
    "90% of codes' variance lies in fewer directions than the decoder needs (6.4)": (
        decoder_hears_more
    ),
    "Distance between codes predicts the change in the picture: rank correlation above "
    ".5 (6.4)": near_is_alike,
    "A code is not a tile: it fixes less than 90% of the variance of its own pixels "
    "(6.3)": no_tiles,
}


def _ratios(these: Sequence[Result], those: Sequence[Result]) -> list[float]:
    """Return the ratios of errors, of runs with the same seed."""
    return [a / b for a, b in zip(lost(these), lost(those), strict=True)]


def _cut(runs: Runs, small: int, large: int) -> list[float]:
    """Return the share of the error that a doubling from one size on removes."""
    doublings = math.log2(large / small)
    ratios = _ratios(runs.by_size[large], runs.by_size[small])
    return [1 - ratio ** (1 / doublings) for ratio in ratios]


def _gaps(runs: Sequence[Result], beta: float) -> list[float]:
    """Return the mean squared distance of an entry of z_e from its code's."""
    if all("gap" in run.numbers for run in runs):
        return numbers(runs, "gap")
    return [run.history["vq_loss"][-1] / beta for run in runs]  # in the last window


def _percent(shares: Sequence[float]) -> str:
    return ranged([100 * share for share in shares], "{:.0f}%")
