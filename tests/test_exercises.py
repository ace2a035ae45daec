"""The checks of exercises know right answers from wrong ones, and the reader's faults from their own."""

from __future__ import annotations

import importlib.util
import itertools
import re
from collections.abc import Callable
from pathlib import Path

import project
import pytest
import torch
from torch import Tensor, nn

from vqvae_book import exercises as module
from vqvae_book.exercises import check, disagreement, exercise, exercises, first_wrong, guarded


def answers() -> tuple[dict[str, list], dict[str, list]]:
    """Right and wrong answers by exercise, from all of tests/answers/*.py."""
    right, wrong = {}, {}
    for path in sorted(Path(__file__).with_name("answers").glob("*.py")):
        spec = importlib.util.spec_from_file_location(f"answers_{path.stem}", path)
        found = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found)
        right |= found.RIGHT
        wrong |= found.WRONG
    return right, wrong


RIGHT, WRONG = answers()


@pytest.mark.parametrize("number", exercises())
def test_an_exercise_knows_right_answers_from_wrong_ones_and_gives_none_away(number):
    right, wrong = RIGHT.get(number, []), WRONG.get(number, [])
    assert len(right) >= 1 and len(wrong) >= 2, "Remedy: put answers into tests/answers/<chapter>.py"
    for answer in right:
        assert check(number, answer).data.startswith("**Right.** "), answer
    for answer in wrong:
        said = check(number, answer).data
        assert said.startswith("**Not yet.** ") and "\n" not in said, (answer, said)
        for solution in (solution for solution in right if isinstance(solution, str | float)):
            assert not re.search(rf"\b{re.escape(str(solution))}\b", said)


def test_there_are_answers_and_headings_for_exercises_that_exist_alone():
    assert RIGHT.keys() | WRONG.keys() <= exercises().keys()
    text = "\n".join(path.read_text(encoding="utf-8") for path in project.chapters())
    headings = set(re.findall(r"### Exercise (\d+\.\d+)", text))
    assert exercises().keys() <= headings
    assert set(re.findall(r'\bcheck\(\\"(\d+\.\d+)', text)) <= exercises().keys()


@pytest.fixture
def ask(monkeypatch) -> Callable[[Callable, object], str]:
    """Register a check of a made-up exercise, and say what it makes of an answer."""
    exercises()  # the real ones first
    monkeypatch.setattr(module, "_registry", {})
    numbers = itertools.count(1)

    def ask(hint: Callable, answer: object) -> str:
        number = f"99.{next(numbers)}"
        exercise(number, "So it is.")(hint)
        return check(number, answer).data

    return ask


def half(answer: float) -> str | None:
    return None if answer == 0.5 else "Not that."


def word(answer: str) -> str | None:
    return None if answer == "decoder" else "Not that."


def doubles(answer: Callable) -> str | None:
    return disagreement(answer, lambda x: 2 * x, (torch.rand(3, 2),), (1.5,))


def total(answer: Tensor) -> str | None:
    return first_wrong(answer, {"a": 1, "b": 2})


def layer(answer: nn.Linear) -> str | None:
    return disagreement(guarded(answer), lambda x: x @ answer.weight.T, (torch.ones(2, 3),))


@pytest.mark.parametrize(
    ("hint", "answer", "said"),
    [
        (half, 0.5, "**Right.** So it is."),
        (half, torch.tensor([0.5]), "**Right.** So it is."),
        (half, 1, "**Not yet.** Not that."),
        *[(half, answer, "**Not yet.** Give a number;") for answer in ("0.5", True, [0.5, 1], float("nan"), None, {})],
        (half, ..., "Exercise 99.1 waits for a number:"),
        (total, [1, 2], "**Right.**"),
        (total, [torch.tensor(1), 3], "**Not yet.** Look again at: b."),
        (total, [1], "**Not yet.** Give 2 numbers in this order: a, b."),
        (total, [...], "Exercise 99.1 waits for numbers:"),
        (total, ["one", "two"], "**Not yet.** Give numbers;"),
        (word, " Decoder ", "**Right.**"),
        (word, len, "**Not yet.** Give text;"),
        (doubles, lambda x: x + x, "**Right.**"),
        (doubles, lambda x: x * x, "**Not yet.** Given (3, 2), it returned values, and 6 of 6 differ"),
        (doubles, lambda x: 2 * x[0], "**Not yet.** Given (3, 2), it returned the shape (2,); it must be (3, 2)."),
        (doubles, lambda x: "2x", "**Not yet.** Given (3, 2), it returned something that is not"),
        (doubles, 2.0, "**Not yet.** Give a function;"),
        (doubles, lambda x: x.mul_(2) if isinstance(x, Tensor) else 2 * x, "**Right.**"),  # works on a copy
        (doubles, lambda: 0, "**Your function raised an error:**\n\n    TypeError:"),
        (doubles, lambda x: {}["x"], "**Your function raised an error:**\n\n    KeyError: 'x'"),
        (layer, nn.Linear(3, 2, bias=False), "**Right.**"),
        (layer, nn.Linear(2, 2), "**Your function raised an error:**\n\n    RuntimeError:"),
        (layer, 3, "**Not yet.** Give an object of type `Linear`;"),
    ],
)
def test_an_answer_of_any_kind_is_judged_or_what_is_asked_for_is_said(ask, hint, answer, said):
    assert ask(hint, answer).startswith(said)


def test_a_fault_of_ours_is_not_blamed_on_the_reader(ask):
    def faulty(answer: Callable) -> str | None:
        raise KeyError("ours")

    with pytest.raises(KeyError, match="ours"):
        ask(faulty, len)


def test_a_number_without_a_check_names_those_that_have_one_and_none_has_two():
    with pytest.raises(ValueError, match=re.escape("'2.1'")):
        check("2.99", 1)
    with pytest.raises(ValueError, match="registered once"):
        exercise("2.1", "Again.")(half)


def test_a_check_draws_the_same_each_time_and_leaves_the_readers_draws_alone(ask):
    seen = []

    def draws(answer: float) -> None:
        seen.append(torch.rand(3))

    before = torch.get_rng_state()
    ask(draws, 1)
    torch.rand(1)
    ask(draws, 1)
    torch.set_rng_state(before)
    assert torch.equal(*seen)
    expected = torch.rand(1)
    torch.set_rng_state(before)
    ask(draws, 1)
    assert torch.equal(torch.rand(1), expected)
