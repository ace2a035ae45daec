"""Questions that readers answer on the page, without a kernel: ``questions/*.toml``."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqvae_lib._util import check_choice

from .notebook import embed

if TYPE_CHECKING:
    from IPython.display import HTML

FOLDER = Path(__file__).with_name("questions")
FIELDS = {  # of a question, and of the tables in its lists; "?": may be left out
    "choose": "kind ask options",
    "number": "kind ask answer tolerance why wrong? other",
    "order": "kind ask steps why",
    "options": "text why right?",
    "wrong": "number why",
    "steps": "text why",
}
TEXT = re.compile(r"(?=\s*\S)([^`$]|`[^`$]+`)+")


def self_check(chapter: str, *names: str) -> HTML:
    """Show questions of ``questions/<chapter>.toml``, all of them if none is named."""
    check_choice("chapter", chapter, sorted(p.stem for p in FOLDER.glob("*.toml")))
    questions = load(FOLDER / f"{chapter}.toml")
    for name in names:
        check_choice("question", name, list(questions))
    names = names or tuple(questions)
    shown = "\n".join(_show(questions[name]) for name in names)
    return embed(__file__, chapter, names[0], QUESTIONS=shown)


def load(path: Path) -> dict[str, dict[str, Any]]:
    """Read questions; ``ValueError`` names the file, question and field of a fault."""
    try:
        questions = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path.name} is not TOML: {error}") from error
    for name, question in questions.items():
        if fault := next(_faults(question), None):
            raise ValueError(f'{path.name}, question "{name}": {fault}.')
    return questions


def _faults(question: Any) -> Iterator[str]:
    kind = question.get("kind") if isinstance(question, dict) else None
    if kind not in ("choose", "number", "order"):
        yield f'kind = {kind!r} must be "choose", "number" or "order"'
    yield from _field_faults(question, kind)
    right = [option.get("right") for option in question.get("options", ())].count(True)
    if kind == "choose" and right != 1:
        yield f"options: exactly one must have right = true, {right} have it"
    steps = [step["text"] for step in question.get("steps", ())]
    if kind == "order" and len(set(steps)) < max(3, len(steps)):
        yield "steps: three or more are needed, no two of them alike"
    if kind == "number" and question["tolerance"] <= 0:
        yield f"tolerance = {question['tolerance']} must be above 0"
    for wrong in question.get("wrong", ()):
        if abs(wrong["number"] - question["answer"]) <= question["tolerance"]:
            yield f"the wrong number {wrong['number']} is within the tolerance"


def _field_faults(table: Any, kind: str, where: str = "") -> Iterator[str]:
    table = table if isinstance(table, dict) else {}  # then all is missing
    for field in FIELDS[kind].split():
        if field[-1] != "?" and field not in table:
            yield f"{field}{where} is missing"
    for field, value in table.items():
        if field not in FIELDS[kind].replace("?", "").split():
            yield f"{field}{where} is unknown; the fields are: {FIELDS[kind]}"
        elif field in ("options", "wrong", "steps"):
            for i, part in enumerate(value if isinstance(value, list) else [0], 1):
                yield from _field_faults(part, field, f" of {field} {i}")
        elif field in ("answer", "tolerance", "number"):
            if type(value) not in (int, float) or not abs(value) < 1e300:
                yield f"{field}{where} = {value!r} must be a number"
        elif field != "right" and not (type(value) is str and TEXT.fullmatch(value)):
            yield f"{field}{where} = {value!r} must be text and `code`, without $"


def _show(q: dict[str, Any]) -> str:
    """Lay out what is asked, what to choose from, and all explanations, folded."""
    shown = []  # rows like those of `said`: the script's key, a text, an explanation
    if q["kind"] == "choose":
        shown = [(o.get("right") is True, o["text"], o["why"]) for o in q["options"]]
        said = [(r, f"{'Right' if r else 'Wrong'}: {t}", why) for r, t, why in shown]
    elif q["kind"] == "number":
        wrong = [(w["number"], w["why"]) for w in q.get("wrong", ())]
        said = [(q["answer"], f"Right: {q['answer']}", q["why"])]
        said += [(number, f"Wrong: {number}", why) for number, why in wrong]
        said.append(("", "Wrong: any other number", q["other"]))
    else:
        said = [(i, step["text"], step["why"]) for i, step in enumerate(q["steps"])]
        shown = said[2::3] + said[1::3] + said[::3]  # never in order, always the same
        said.append(("", "All in this order", q["why"]))
    items = [f'<li data-key="{k}">{_html(text)}' for k, text, _ in shown]
    why = [f'<li>{_html(t)}<p data-key="{k}">{_html(w)}</p>' for k, t, w in said]
    return f"""<fieldset data-kind="{q["kind"]}" data-tolerance="{q.get("tolerance")}">
<legend>{_html(q["ask"])}</legend>
<ol>{"".join(items)}</ol><p class="verdict" aria-live="polite"></p>
<details><summary>Answer</summary><ul>{"".join(why)}</ul></details></fieldset>"""


def _html(text: str) -> str:
    return re.sub("`(.+?)`", r"<code>\1</code>", escape(text))
