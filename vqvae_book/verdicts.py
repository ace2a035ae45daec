"""Words that a run's numbers choose: the only place where a page compares.

Numbers may be one run's or one per seed. Ranges over seeds that overlap are never
called a lead. Each function here has a test case that makes its words change.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

Numbers = float | Sequence[float]


def span(values: Numbers) -> tuple[float, float]:
    """Return the lowest and the highest of a number or of several."""
    several = [float(value) for value in values] if isinstance(values, Sequence) else []
    if not several:
        several = [float(values)]  # type: ignore[arg-type]
    return min(several), max(several)


def below(a: Numbers, b: Numbers, within: float = 0.0) -> bool:
    """Whether all of ``a`` lies below all of ``b``, by more than a share of ``b``."""
    (_, high), (low, _) = span(a), span(b)
    return high < low - within * abs(low)


def compared(
    a: Numbers,
    b: Numbers,
    less: str = "lower than",
    more: str = "higher than",
    same: str = "about as high as",
    within: float = 0.0,
) -> str:
    """Return the words for ``a`` against ``b``; ``same`` where their ranges overlap.

    For two single runs, ``within`` is the share of ``b`` that counts as no difference.
    """
    if below(a, b, within):
        return less
    return more if below(b, a, within) else same


def either(holds: bool, yes: str, no: str) -> str:
    """Return the words for a fact that does not compare numbers, such as equal bits."""
    return yes if holds else no


def lowest(groups: Mapping[str, Numbers], highest: bool = False) -> list[str]:
    """Return the best name, and those that the data can't tell from it."""
    sign = -1 if highest else 1
    ends = {name: sorted(sign * end for end in span(of)) for name, of in groups.items()}
    reach = min(high for _, high in ends.values())
    return [name for name, (low, _) in ends.items() if low <= reach]


def trend(courses: Sequence[Sequence[float]]) -> str:
    """Return what the curves of all seeds do from point to point."""
    steps = [b - a for course in courses for a, b in itertools.pairwise(course)]
    if all(step > 0 for step in steps):
        return "rises throughout"
    return "falls throughout" if all(step < 0 for step in steps) else "goes up and down"


def sign_test(differences: Sequence[float]) -> float:
    """Return the chance of signs as uneven as these, if each were a coin toss."""
    n, above = len(differences), sum(difference > 0 for difference in differences)
    tail = sum(math.comb(n, i) for i in range(min(above, n - above) + 1))
    return min(1.0, 2 * tail / 2**n)


def verdict(holds: bool | None) -> str:
    """Return a claim's verdict; None is for data that do not decide it."""
    if holds is None:
        return "not decided"
    return "holds" if holds else "does not hold"


def plural(count: int, one: str, more: str = "") -> str:
    """Return a count with its noun: "1 step", "3 steps"."""
    return f"{count} {one if count == 1 else more or one + 's'}"


def ranged(values: Numbers, form: str = "{:.4g}") -> str:
    """Return "mean (lowest to highest)", or one number if all look the same."""
    several = list(values) if isinstance(values, Sequence) else [float(values)]
    mean, low, high = (
        form.format(x) for x in (sum(several) / len(several), *span(several))
    )
    return mean if low == high else f"{mean} ({low} to {high})"


def listed(names: Sequence[object], last: str = "and") -> str:
    """Return "a, b and c"."""
    words = [str(name) for name in names]
    return f" {last} ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)
