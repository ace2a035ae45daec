"""Words that numbers choose: each turns round when the numbers do, and no page chooses any by itself."""

import ast

import notebooks
import project
import pytest

from vqvae_book import verdicts

# For each function: arguments, the words they choose, and arguments that must choose others.
TURNS = {
    "compared": [
        (([1, 2], [3, 4]), "lower than", ([5, 6], [3, 4]), "higher than"),
        (([1, 3], [2, 4]), "about as high as", ([1, 2], [2.5, 4]), "lower than"),
        ((1.0, 1.01, "less", "more", "same", 0.05), "same", (1.0, 1.2, "less", "more", "same", 0.05), "less"),
    ],
    "below": [(([1, 2], [3]), True, ([1, 3], [3]), False), ((1, 2, 0.6), False, (0.7, 2, 0.6), True)],
    "lowest": [
        (({"a": [1, 2], "b": [3]},), ["a"], ({"a": [1, 2], "b": [2, 3]},), ["a", "b"]),
        (({"a": 1.0, "b": 2.0}, True), ["b"], ({"a": 3.0, "b": 2.0}, True), ["a"]),
    ],
    "trend": [
        (([[1, 2, 3], [0, 2, 5]],), "rises throughout", ([[1, 2, 3], [0, 2, 1]],), "goes up and down"),
        (([[3, 2, 1]],), "falls throughout", ([[3, 2, 2]],), "goes up and down"),
    ],
    "sign_test": [(([1, 2, 3, 4],), 2 / 16, ([1, 2, 3, -4],), 10 / 16), (([1, -1],), 1, ([-1, -1],), 0.5)],
    "verdict": [((True,), "holds", (False,), "does not hold"), ((None,), "not decided", (True,), "holds")],
    "either": [((True, "yes", "no"), "yes", (False, "yes", "no"), "no")],
    "plural": [
        ((1, "step"), "1 step", (2, "step"), "2 steps"),
        ((2, "study", "studies"), "2 studies", (1, "study"), "1 study"),
    ],
    "span": [(([2, 1, 3],), (1, 3), (4.0,), (4, 4))],
    "ranged": [(([1.0, 3.0],), "2 (1 to 3)", ([1.0, 1.0],), "1")],
    "listed": [((["a", "b", "c"],), "a, b and c", (["a"],), "a")],
}


@pytest.mark.parametrize(
    "name", [name for name, thing in vars(verdicts).items() if getattr(thing, "__module__", "") == verdicts.__name__]
)
def test_words_turn_round_with_the_numbers(name):
    assert TURNS[name]  # every function has its cases
    for given, words, turned, others in TURNS[name]:
        assert getattr(verdicts, name)(*given) == words
        assert getattr(verdicts, name)(*turned) == others != words


def chosen(source: str) -> list[str]:
    """Texts that code chooses by itself: conditional expressions, and branches that assign one name or the other."""
    tree = ast.parse("\n".join(line for line in source.splitlines() if not line.startswith(("%", "!"))))

    def texts(*nodes: ast.AST) -> bool:
        return any(
            isinstance(n, ast.JoinedStr) or (isinstance(n, ast.Constant) and isinstance(n.value, str)) for n in nodes
        )

    found = [node for node in ast.walk(tree) if isinstance(node, ast.IfExp) and texts(node.body, node.orelse)]
    for node in ast.walk(tree):
        if isinstance(node, ast.If):
            assigned = [
                line for line in [*node.body, *node.orelse] if isinstance(line, ast.Assign) and texts(line.value)
            ]
            found += [node] if assigned else []
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "either":  # is not for what is larger or smaller
            orders = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
            found += [node] if any(isinstance(part, orders) for part in ast.walk(node.args[0])) else []
    return [ast.unparse(node)[:70] for node in found]


def test_choices_of_words_are_found():
    assert chosen('say("lower" if a < b else "higher")') and chosen('if a < b:\n    word = f"{a}"')
    assert chosen('either(a < b, "lower", "higher")') and not chosen('either(a == b, "equal", "not equal")')
    assert not chosen("x = 1 if a < b else 2\nwith a:\n    say(compared(a, b))")


@pytest.mark.parametrize("path", project.chapters(), ids=lambda path: path.stem)
def test_pages_choose_no_words_by_themselves(path):
    cells = [cell.source for cell in notebooks.read(path).cells if cell.cell_type == "code"]
    assert [words for cell in cells if not notebooks.is_first_cell(nb(cell)) for words in chosen(cell)] == []


def nb(source: str):
    return notebooks.nbformat.v4.new_code_cell(source)
