"""Sentences about MNIST on other datasets: each verdict turns round with the runs."""

from types import SimpleNamespace

import pytest

from vqvae_book import sentences
from vqvae_book.sentences import Runs


def runs(*errors, **numbers):
    """One run per seed; a number is the same for all of them, or one per seed."""
    return [
        SimpleNamespace(
            provenance={"variance": 0.5},
            history={"vq_loss": [9.0, numbers.get("vq_loss", 1.0)]},
            numbers={"MSE": error}
            | {name.replace("_", " "): of[i] if isinstance(of, list) else of for name, of in numbers.items()},
        )
        for i, error in enumerate(errors)
    ]


def sizes(*groups, active=1024):
    return {K: runs(*errors, active_codes=active) for K, errors in zip((16, 64, 1024), groups, strict=True)}


FADING, EVEN = sizes((0.2, 0.2), (0.1, 0.1), (0.05, 0.05)), sizes((0.2, 0.2), (0.19, 0.19), (0.1, 0.1))
OVERLAP = sizes((0.2, 0.2), (0.1, 0.19), (0.05, 0.05))
ERRORS, GAPS = {0.25: (0.1, 0.11), 4.0: (0.101, 0.112), 0.0: (0.2, 0.3)}, {0.0: 8, 0.25: 4, 4.0: 1}


def betas(gaps=None, **changed):
    errors = ERRORS | {float(name[1:]): of for name, of in changed.items()}
    return {beta: runs(*errors[beta], gap=(gaps or GAPS)[beta]) for beta in errors}


# For each judge: a field of Runs, its value, how the answer begins, and a value of which it must begin otherwise.
TURNS = {
    "falls": [
        ("by_size", FADING, "holds", sizes((0.2, 0.2), (0.3, 0.3), (0.05, 0.05)), "does not hold"),
        ("by_size", sizes((0.2, 0.2), (0.3, 0.1), (0.05, 0.05)), "not decided", FADING, "holds"),
    ],
    "fades": [
        ("by_size", FADING, "holds: 29%, then 16%", EVEN, "does not hold"),
        ("by_size", OVERLAP, "not decided", FADING, "holds"),
    ],
    "in_use": [
        ("by_size", FADING, "holds: 100% of 1,024", sizes(*[(1, 1)] * 3, active=900), "does not hold"),
        ("by_size", sizes(*[(1, 1)] * 3, active=[1000, 900]), "not decided", FADING, "holds"),
    ],
    "beta_matters_less": [
        ("by_beta", betas(), "holds: 1% against 50%", betas(b4=(0.2, 0.3)), "does not hold"),
        ("larger", runs(0.0995, 0.1095), "does not hold: 1% against 0%", runs(0.05, 0.055), "holds"),
        ("by_beta", betas(b4=(0.15, 0.165)), "not decided", betas(), "holds"),
    ],
    "beta_pulls": [
        ("by_beta", betas(), "holds: 4 times", betas(GAPS | {4.0: 5}), "does not hold"),
        ("by_beta", betas(GAPS | {4.0: [1, 5]}), "not decided", betas(), "holds"),
    ],
    "commitment_helps": [
        ("by_beta", betas(), "holds; 1 of 2 failed", betas(b0=(0.05, 0.06)), "does not hold; 0 of 2"),
        ("by_beta", betas(b0=(0.05, 0.4)), "not decided; 1 of 2", betas(), "holds"),
    ],
    "decoder_hears_more": [
        ("measured", runs(1, 1, directions=3, heard=[5, 6]), "holds: 3", runs(1, directions=4, heard=3), "does not"),
        ("measured", runs(1, 1, directions=[3, 4], heard=4), "not decided", runs(1, directions=3, heard=4), "holds"),
    ],
    "near_is_alike": [
        ("measured", runs(1, rank_correlation=0.6), "holds: 0.60", runs(1, rank_correlation=0.4), "does not hold"),
        ("measured", runs(1, 1, rank_correlation=[0.4, 0.6]), "not decided", runs(1, rank_correlation=0.6), "holds"),
    ],
    "no_tiles": [
        ("measured", runs(1, share_fixed=0.8), "holds: 80%", runs(1, share_fixed=0.95), "does not hold"),
        ("measured", runs(1, 1, share_fixed=[0.8, 0.95]), "not decided", runs(1, share_fixed=0.8), "holds"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("judge", sentences.SENTENCES.values(), ids=lambda judge: judge.__name__)
def test_each_verdict_turns_round_with_the_runs(judge):
    usual = Runs(FADING, betas(), runs(0.05, 0.055), [])
    for field, given, begins, turned, otherwise in TURNS[judge.__name__]:  # every sentence has its cases
        found, other = (judge(usual._replace(**{field: of})) for of in (given, turned))
        assert found.startswith(begins) and other.startswith(otherwise) and found != other


def test_a_gap_that_was_not_stored_is_read_off_the_last_window():
    at = {0.25: runs(0.1, vq_loss=0.5), 4.0: runs(0.1, vq_loss=2.0), 0.0: []}
    assert sentences.beta_pulls(Runs(FADING, at, [], [])) == "holds: 4 times"  # .5 / .25 = 2 against 2 / 4 = .5
