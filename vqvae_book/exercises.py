"""Checks of readers' answers to exercises; each is a function in ``checks``."""

from __future__ import annotations

import functools
import importlib
import math
import pkgutil
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, get_type_hints

import torch
from torch import Tensor

from vqvae_lib import seeded
from vqvae_lib._util import check_choice, require

from .notebook import say

if TYPE_CHECKING:
    from IPython.display import Markdown

KINDS = {float: "a number", Tensor: "numbers", str: "text", Callable: "a function"}


class Exercise(NamedTuple):
    """A check: its hint for an answer, an answer's type, what to say if it is right."""

    hint: Callable[[Any], str | None]
    kind: type
    right: str


class ReaderError(Exception):
    """A reader's function raised an error, which is the cause of this one."""


_registry: dict[str, Exercise] = {}


def exercise(number: str, right: str) -> Callable:
    """Register a function as the check of an exercise: answer -> hint, None if right.

    Args:
        number: the one in the chapter, such as "2.3".
        right: why a right answer is right, in a sentence.

    The argument's annotation is the type that an answer must have; others are rejected:
    ``float``; ``Tensor``, made float64, also from a list of numbers; ``str``, stripped
    and made lowercase; ``Callable``, whose errors are reported as the reader's; or
    another class (wrap calls to the reader's objects in `guarded`).
    """

    def register(hint: Callable[[Any], str | None]) -> Callable[[Any], str | None]:
        kinds = [of for name, of in get_type_hints(hint).items() if name != "return"]
        require(len(kinds) == 1, "arguments of a check", kinds, "one, with its type")
        require(number not in _registry, "exercise", number, "registered once")
        _registry[number] = Exercise(hint, kinds[0], right)
        return hint

    return register


def exercises() -> dict[str, Exercise]:
    """Return all exercises that have a check, by number."""
    from . import checks

    for module in pkgutil.iter_modules(checks.__path__, f"{checks.__name__}."):
        importlib.import_module(module.name)
    return {number: _registry[number] for number in sorted(_registry, key=_place)}


def check(number: str, answer: Any) -> Markdown:
    """Say whether an answer is right, and why, or where to look.

    Random draws of a check have a fixed seed, and the caller's generator is left alone.
    An exercise that has no check raises ``ValueError``.
    """
    known = exercises()
    check_choice("exercise", str(number), list(known))
    asked = known[str(number)]
    what = KINDS.get(asked.kind, f"an object of type `{asked.kind.__name__}`")
    parts = answer if isinstance(answer, list | tuple) else [answer]
    if any(part is ... for part in parts):
        return say(f"Exercise {number} waits for {what}: put yours in place of `...`.")
    given = _read(answer, asked.kind)
    if given is None:
        name = type(answer).__name__
        return say(f"**Not yet.** Give {what}; `{name}` is not what is asked for.")
    try:
        with seeded(0):
            hint = asked.hint(given)
    except ReaderError as error:
        raised, name = error.__cause__, type(error.__cause__).__name__
        message = textwrap.indent(f"{name}: {raised}", "    ")
        return say(f"**Your function raised an error:**\n\n{message}")
    return say(f"**Right.** {asked.right}" if hint is None else f"**Not yet.** {hint}")


def disagreement(function: Callable, ours: Callable, *cases: tuple) -> str | None:
    """Call both on each case, a tuple of arguments; describe the first difference.

    Results are tensors, numbers or tuples of numbers. None if all agree to 1e-4.
    """
    for case in cases:
        copies = [x.clone() if isinstance(x, Tensor) else x for x in case]
        found, expected = function(*copies), _tensor(ours(*case))
        shapes = [str(tuple(x.shape) if isinstance(x, Tensor) else x) for x in case]
        given, found = f"Given {' and '.join(shapes)}, it returned", _tensor(found)
        if found is None:
            return f"{given} something that is not a tensor of numbers."
        if found.shape != expected.shape:
            shape = tuple(expected.shape)
            return f"{given} the shape {tuple(found.shape)}; it must be {shape}."
        wrong = ~torch.isclose(found, expected, rtol=1e-4, atol=1e-6)
        if wrong.any():
            count = f"{int(wrong.sum())} of {wrong.numel()}"
            return f"{given} values, and {count} differ from ours."
    return None


def first_wrong(answer: Tensor, expected: dict[str, float]) -> str | None:
    """Compare numbers with the named ones; a hint names the first that is not right."""
    names = list(expected)
    if answer.shape != (len(names),):
        return f"Give {len(names)} numbers in this order: {', '.join(names)}."
    values = torch.tensor(list(expected.values()), dtype=torch.float64)
    wrong = ~torch.isclose(answer, values, rtol=1e-3, atol=1e-9)
    first = names[int(wrong.int().argmax())]
    return f"Look again at: {first}." if wrong.any() else None


def _place(number: str) -> list[int]:
    return [int(part) for part in number.split(".")]


def _tensor(value: Any) -> Tensor | None:
    """Return numbers as float64 on the CPU, or None if they are not numbers."""
    try:
        numbers = torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        return None
    real = numbers.dtype != torch.bool and not numbers.is_complex() and numbers.numel()
    return numbers.double() if real else None


def _read(answer: Any, kind: type) -> Any:
    """Convert an answer to the type it must have, or return None."""
    if kind is str:
        return answer.strip().lower() if isinstance(answer, str) else None
    if kind is Callable:
        return guarded(answer) if callable(answer) else None
    if kind not in KINDS:
        return answer if isinstance(answer, kind) else None
    numbers = _tensor(answer)
    if numbers is None or kind is Tensor:
        return numbers
    finite = numbers.numel() == 1 and math.isfinite(numbers.item())
    return numbers.item() if finite else None


def guarded(function: Callable) -> Callable:
    """Wrap a reader's function, so that its errors are reported as the reader's."""

    @functools.wraps(function, updated=())
    def call(*args: Any) -> Any:
        try:
            return function(*args)
        except Exception as error:
            raise ReaderError from error

    return call
