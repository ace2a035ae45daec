"""The claims page: what others say, what would refute it, and our verdict.

A claim's function takes plain numbers, one per seed where there are seeds; ``evidence``
reads them from stored results.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from .evidence import NEAR, cheaper
from .extras import latent_usage
from .notebook import table
from .results import FAILED
from .verdicts import below, compared, either, listed, ranged, sign_test, verdict

Seeds = Sequence[float]  # one number per seed
PAPER = 4.51 - 4.67  # bits per dimension, VAE minus VQ-VAE


class Claim(NamedTuple):
    """A claim that can be looked up, and what became of it.

    ``refuted`` says what would refute it. ``verdict`` begins with "holds", "does not
    hold", "depends on" or "not decided".
    """

    says: str
    source: str
    refuted: str
    measured: str
    verdict: str


def shown(*claims: Claim, first: int = 1) -> str:
    """Return claims as Markdown, numbered from ``first``."""
    answers = ["depends on", *map(verdict, (True, False, None))]
    blocks = []
    for number, claim in enumerate(claims, first):
        [answer] = [word for word in answers if claim.verdict.startswith(word)]
        measured = claim.measured.replace("\n", "\n  ")  # a table stays in its line
        blocks.append(f"""**{number}. {claim.says}**

- *Said in* {claim.source}.
- *Refuted if* {claim.refuted}.
- *Measured:* {measured}
- *Verdict:* **{answer}**{claim.verdict.removeprefix(answer)}.
""")
    return "\n".join(blocks)


def straight_through(lost: Seeds, steps: int) -> Claim:
    """Judge by the share of the pixels' variance that models lose after training."""
    return Claim(
        "A gradient that is copied past the quantizer trains the encoder.",
        "the paper, section 3.2; the estimator is older (Bengio and others, 2013, "
        "arXiv:1308.3432)",
        "a trained model loses half of the pixels' variance or more (the mean image, "
        "used for every input, loses about 70%)",
        f"share of the variance lost after {steps} steps: "
        f"{ranged([100 * x for x in lost], '{:.1f}%')}. See {_page('01_maths')}.",
        verdict(max(lost) <= FAILED),
    )


def moving_averages(averages: Seeds, loss_term: Seeds, steps: int) -> Claim:
    """Judge by the errors that both kinds of codebook reach in equally many steps."""
    return Claim(
        "Moving averages can replace the codebook loss, and usually train faster.",
        'the paper, appendix A.1; "faster" in Sonnet\'s `VectorQuantizerEMA` '
        "(google-deepmind/sonnet, `sonnet/src/nets/vqvae.py`)",
        "at the same step count, the averages have the higher error in every seed",
        f"error after {steps} steps: averages {ranged(averages, '{:.5f}')}, loss term "
        f"{ranged(loss_term, '{:.5f}')}. See {_page('05_training')}.",
        compared(
            averages,
            loss_term,
            "holds: the lower error in every seed",
            "does not hold: the loss term has the lower error in every seed",
            "depends on the half: they can replace it; whether they train faster is "
            "not decided, because the ranges overlap",
        ),
    )


def any_beta(errors_at: Mapping[int, Mapping[float, Seeds]]) -> Claim:
    """Judge by errors, K -> beta -> one per seed, in pairs with those at beta = 0.25.

    Runs with equal K and seed share initial weights and batches. A sign test decides at
    .05 divided by the number of tests.
    """
    betas = sorted(set().union(*errors_at.values()) - {0.25})
    rows, differ = [], []
    for beta in betas:
        pairs = [zip(e[beta], e[0.25], strict=True) for e in errors_at.values()]
        changes = [math.log(a / b) for a, b in itertools.chain(*pairs)]
        chance, mean = sign_test(changes), 100 * (math.exp(fmean(changes)) - 1)
        differ += [f"{beta:g}"] if chance < 0.05 / len(betas) else []
        row = {"β": f"{beta:g}", "mean change of the error": f"{mean:+.1f}%"}
        row["higher in"] = f"{sum(c > 0 for c in changes)} of {len(changes)} pairs"
        rows.append(row | {"p": f"{chance:.2g}"})
    told = f"does not hold on our scale: errors at β = {listed(differ)} differ"
    return Claim(
        "Results do not vary for β from 0.1 to 2.0.",
        "the paper, section 3.2, with the codebook loss. A contrary report: "
        "ritheshkumar95/pytorch-vqvae, where β = 0.25 diverged and β = 1 did not",
        "in pairs of runs with moving averages and the same K and seed, some β gives a "
        "higher error than 0.25, or a lower one, more often than chance explains",
        f"against β = 0.25. p is the chance of a split this uneven; it counts below "
        f"{0.05 / len(betas):.2g}. Our β is on another scale (Table 1.2). "
        f"See {_page('07_choosing')}.\n\n{table(rows).data}\n",
        either(bool(differ), told, "holds on our scale: no difference"),
    )


def large_codebook(
    sizes: tuple[int, int], errors: Sequence[Seeds], active: Seeds, even: Seeds
) -> Claim:
    """Judge by the codes in use; sizes, errors: of the two largest codebooks."""
    used = [100 * codes / sizes[0] for codes in active]
    words = "lower than", "higher than", "not clearly different from that"
    apart = 100 * abs(1 - fmean(errors[0]) / fmean(errors[1]))
    return Claim(
        "In a large codebook most codes stay unused.",
        "Mentzer and others, 2023, arXiv:2309.15505, abstract; measured in "
        "xyfJASON/visual-tokenizer-pytorch, `docs/benchmark-imagenet64.md`: 96% of "
        "512 codes in use, 3% of 16,384, at about the same PSNR",
        "more than 95% of the codes are in use in every seed",
        f"with codes that start on data and are restarted, {ranged(used, '{:.0f}%')} "
        f"of {sizes[0]:,} codes are in use, at a perplexity of "
        f"{ranged(even, '{:,.0f}')}. The error is {compared(*errors, *words)} with "
        f"{sizes[1]:,} codes: the means differ by {apart:.0f}%. See "
        f"{_page('02_quantizer')}, also for a uniform start without restarts.",
        either(
            below(95, used),
            "depends on starting values and restarts: with ours, it does not happen",
            "holds, with a start from data and restarts as well",
        ),
    )


def beta_pulls_encoder(paper: Sequence[str], legacy: Sequence[str]) -> Claim:
    """Judge by what the beta term's gradient reaches in two implementations."""
    right = [list(parts) == ["encoder outputs"] for parts in (paper, legacy)]
    swapped = (
        "depends on the code: it holds as the paper writes it; in the legacy code the "
        "two terms are swapped, and no value of the loss shows it"
    )
    return Claim(
        "β weights the pull of encoder outputs toward their codes.",
        "the paper, section 3.2; the other way around in CompVis/taming-transformers, "
        "`taming/modules/vqvae/quantize.py`, `legacy=True` (issues 46 and 57)",
        "the gradient of the term with β reaches the codes",
        f"this gradient moves the {' and the '.join(paper)} in the paper, and the "
        f"{' and the '.join(legacy)} in the legacy code. "
        f"See {_page('03_swapped_loss')}.",
        either(all(right), "holds in both", either(right[0], swapped, verdict(False))),
    )


def generates(K: int, saved: Seeds, drawn: Seeds, alone: Seeds, floor: float) -> Claim:
    """Judge by bits saved, and distances of samples, independent codes, real images."""
    far = either(
        below(floor, drawn), "; its samples are farther away than other real images", ""
    )
    holds = below(0, saved) and below(drawn, alone)
    return Claim(
        "With an autoregressive prior over its codes the model generates images.",
        "the paper, abstract",
        "the prior saves no bits over the frequencies of single codes, or its samples "
        "are no closer to the data than images of codes drawn independently",
        f"the prior saves {100 * min(saved):.0f} to {100 * max(saved):.0f}% of the "
        f"bits that the frequencies cost. Fréchet distance at K = {K}: "
        f"{ranged(drawn, '{:.0f}')} with it, {ranged(alone, '{:.0f}')} without; "
        f"between two sets of real images, {floor:.0f}. See {_page('08_prior')}.",
        verdict(holds) + either(holds, far, ""),
    )


def discrete_is_easier(differences: Sequence[tuple[float, Seeds]]) -> Claim:
    """Judge by rates and, at each, the bits of VAE minus VQ-VAE at equal error."""
    words = "the VAE is cheaper", "the VQ-VAE is cheaper", "a tie"
    rates = [rate for rate, _ in differences]
    leads = [cheaper(bits, *words) for _, bits in differences]
    vae, vq = (word in leads for word in words[:2])
    one = verdict(vq if vae or vq else None)
    answer = either(vae and vq, "depends on the rate", one)
    where = _along(rates, leads) or "no error in common"
    rows = [
        {
            "rate of the VQ-VAE": f"{rate:.0f}",
            "VAE minus VQ-VAE": _minus(ranged(bits, "{:+.0f}")),
        }
        | {"seeds that reach the error": len(bits)}
        for rate, bits in differences
    ]
    return Claim(
        "A continuous latent is harder to learn than a discrete one.",
        "the introduction of Keras's example on the VQ-VAE "
        "([keras.io](https://keras.io/examples/generative/vq_vae/))",
        "at equal error, with a learned prior for both, the VAE's latent costs no more "
        "bits than the codes",
        f"bits per image at equal error; a lead means more than {NEAR:.0f} bits in "
        f"every seed. See {_page('09_vae')}.\n\n"
        f"{table(rows).data}\n",
        f"{answer}: {where}",
    )


def _along(rates: Seeds, leads: Sequence[str]) -> str:
    """Say which model leads at which rates, in ascending order."""
    pairs = zip(leads, rates, strict=True)
    runs = [
        (lead, [f"{rate:.0f}" for _, rate in run])
        for lead, run in itertools.groupby(pairs, lambda pair: pair[0])
    ]
    if len(runs) == 1:
        return f"{leads[0]} at every rate"
    parts = []
    for i, (lead, at) in enumerate(runs):
        ends = {0: f"up to {at[-1]} bits", len(runs) - 1: f"from {at[0]} bits on"}
        between = f"at {' to '.join(dict.fromkeys((at[0], at[-1])))} bits"
        parts.append(f"{lead} {ends.get(i, between)}")
    return ", ".join(parts)


def behind_in_likelihood(plain: Seeds, learned: Seeds, at_edge: bool) -> Claim:
    """Judge by bits per dimension, VAE minus VQ-VAE, under plain and learned priors.

    ``at_edge``: a model's best setting is at the edge of the range that was tried.
    """
    near = [below(gaps, 0) and below(2 * PAPER, gaps) for gaps in (plain, learned)]
    answers = {
        (True, True): "holds under plain and under learned priors",
        (True, False): "depends on the prior: it holds under plain ones only",
        (False, True): "depends on the prior: it holds under learned ones only",
        (False, False): verdict(False),
    }
    edge = either(at_edge, ", which is at the edge of the range that was tried", "")
    return Claim(
        "In likelihood the VQ-VAE is behind a VAE, but close.",
        "the paper, section 4.1: 4.51 bits per dimension for the VAE, 4.67 for the "
        "VQ-VAE, on CIFAR-10 under independent priors, a difference of −0.16",
        "in some seed the VQ-VAE is not behind, or is behind by more than twice as "
        "much as in the paper",
        f"difference in bits per dimension: {_minus(ranged(plain, '{:+.2f}'))} under "
        f"plain priors, {_minus(ranged(learned, '{:+.2f}'))} under learned ones, each "
        f"model at its best setting{edge}. "
        "Images and likelihood differ from the paper's, so only the differences can be "
        f"compared. See {_page('09_vae')}.",
        answers[near[0], near[1]],
    )


def codes_are_used(
    swaps: Mapping[str, Seeds], saved: Mapping[str, Seeds], rates: Mapping[str, Seeds]
) -> Claim:
    """Judge by nats lost by a swap, saved and paid: part that learns first -> seeds."""
    used = [word for word, costs in swaps.items() if latent_usage(costs) == "used"]
    some = f"depends on which is first: used with {listed(used)} only"
    answer = either(bool(used), some, verdict(False))
    every = f"holds in each setting, {listed(used)}"
    columns = {"nats lost by the swap": swaps, "nats saved by the codes": saved}
    return Claim(
        "The VQ-VAE's codes are used, even under a powerful decoder.",
        "the paper, abstract",
        "an image does not become less likely when it gets another image's codes",
        "what such a swap costs. The last two columns answer another question: whether "
        f"the codes are worth their rate. See {_page('09_vae')}."
        + _by_first(columns | {"rate in nats": rates}, "{:.0f}"),
        either(len(used) == len(swaps), every, answer),
    )


def latent_collapses(
    swaps: Mapping[str, Seeds], rates: Mapping[str, Seeds], resting: Mapping[str, bool]
) -> Claim:
    """Judge by what a swap of latents costs, where the KL has come to rest."""
    dead = [word for word in swaps if latent_usage(swaps[word]) == "collapsed"]
    left = [word for word in swaps if word not in dead]
    moving = [word for word in left if not resting[word]]
    alive = [word for word in left if resting[word]]
    answers = {
        (True, True): f"depends on which is first: not with {listed(alive, 'or')}",
        (True, False): f"holds with {listed(dead)}",
        (False, True): verdict(False),
        (False, False): verdict(None),
    }
    open_ = f"; not decided with {listed(moving)}: no curve shows the rate at rest"
    answer = answers[bool(dead), bool(alive)] + either(bool(moving), open_, "")
    columns = {"nats lost by the swap": swaps, "KL in nats": rates}
    return Claim(
        "A VAE's latent collapses under a powerful decoder.",
        "the paper, abstract; Bowman and others, 2016, arXiv:1511.06349; Chen and "
        "others, 2017, arXiv:1611.02731",
        "swapping latents still costs more than 1 nat in every seed, once the rate "
        "has stopped falling",
        f"what a swap costs, and the KL. See {_page('09_vae')}."
        + _by_first(columns, "{:.2f}"),
        answer,
    )


def beats_plain_codes(
    says: str,
    source: str,
    errors: Mapping[int, Seeds],
    plain: Mapping[int, Seeds],
    used: Mapping[int, Seeds],
) -> Claim:
    """Judge a method's errors against a plain codebook's: bits -> one per seed.

    ``used``: the shares of the plain codes that are in use.
    """
    sizes = sorted(errors.keys() & plain.keys())
    words = "lower", "higher", "a tie"
    leads = [compared(errors[size], plain[size], *words) for size in sizes]
    at = listed([f"{a} with {2**b:,} codes" for a, b in zip(leads, sizes, strict=True)])
    lower = [lead == "lower" for lead in leads]
    idle = [100 * share for shares in used.values() for share in shares]
    some = f"depends on the number of codes: {at}"
    return Claim(
        says,
        source,
        "at none of the sizes is its error lower than the plain codebook's",
        f"error against the plain codebook's: {at}. Of the plain codes, "
        f"{ranged(idle, '{:.3g}%')} are in use.",
        either(all(lower), verdict(True), either(any(lower), some, verdict(False))),
    )


def _by_first(columns: Mapping[str, Mapping[str, Seeds]], form: str) -> str:
    """Lay out columns, each: which part learns first -> seeds."""
    rows = [
        {"which part learns first": word}
        | {name: ranged(column[word], form) for name, column in columns.items()}
        for word in next(iter(columns.values()))
    ]
    return f"\n\n{table(rows).data}\n"


def _page(name: str) -> str:
    return f"[chapter {int(name[:2])}]({name}.ipynb)"


def _minus(text: str) -> str:
    return text.replace("-", "−")
