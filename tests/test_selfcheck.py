"""Questions of self-checks: each file is sound, what is not is named, and the page holds what its text says."""

from __future__ import annotations

import ast
import re

import notebooks
import project
import pytest

from vqvae_book import selfcheck
from vqvae_book.selfcheck import FOLDER, load, self_check

CHOOSE = """[a]
kind = "choose"
ask = "Which?"
options = [{text = "this", why = "No."}, {text = "that", why = "Yes.", right = true}]
"""
NUMBER = """[b]
kind = "number"
ask = "How many?"
answer = 4
tolerance = 0.5
why = "Yes."
other = "No."
wrong = [{number = 5, why = "One less."}]
"""
ORDER = """[c]
kind = "order"
ask = "In which order?"
why = "Yes."
steps = [{text = "one", why = "1"}, {text = "two", why = "2"}, {text = "three", why = "3"}]
"""


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_the_questions_of_each_chapter_are_sound(path):
    assert load(path)


def test_chapters_ask_questions_that_exist_and_every_question_is_asked():
    asked = set()
    for path in project.chapters():
        for cell in notebooks.read(path).cells:
            if cell.cell_type == "code" and "self_check(" in cell.source:
                calls = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
                for call in (call for call in calls if getattr(call.func, "id", "") == "self_check"):
                    chapter, *names = map(ast.literal_eval, call.args)
                    asked |= {(chapter, name) for name in names or load(FOLDER / f"{chapter}.toml")}
    assert asked == {(path.stem, name) for path in FOLDER.glob("*.toml") for name in load(path)}


@pytest.mark.parametrize(
    ("question", "old", "new", "fault"),
    [
        (CHOOSE, ', why = "No."', "", '"a": why of options 1 is missing'),
        (CHOOSE, ", right = true", "", '"a": options: exactly one must have right = true, 0 have it'),
        (CHOOSE, '"No."', '"No.", right = true', '"a": options: exactly one must have right = true, 2 have it'),
        (CHOOSE, "right = true", 'right = true, hint = "No."', '"a": hint of options 2 is unknown'),
        (CHOOSE, '"Which?"', '" "', "\"a\": ask = ' ' must be text"),
        (CHOOSE, '"Which?"', '"Which $k$?"', "without [$]"),
        (CHOOSE, '"Which?"', '"Which `k?"', "must be text and `code`"),
        (CHOOSE, '"choose"', '"pick"', "kind = 'pick' must be"),
        (CHOOSE, 'kind = "choose"', "", "kind = None must be"),
        (CHOOSE, "options = [", "options = 3 # [", '"a": text of options 1 is missing'),
        (CHOOSE, '"this"', "8", '"a": text of options 1 = 8 must be text'),
        (CHOOSE, "[{text", "[3, {text", '"a": text of options 1 is missing'),
        (NUMBER, "answer = 4", "", '"b": answer is missing'),
        (NUMBER, "answer = 4", 'answer = "4"', "answer = '4' must be a number"),
        (NUMBER, "answer = 4", "answer = nan", "answer = nan must be a number"),
        (NUMBER, "tolerance = 0.5", "", '"b": tolerance is missing'),
        (NUMBER, "tolerance = 0.5", "tolerance = 0", '"b": tolerance = 0 must be above 0'),
        (NUMBER, 'other = "No."', "", '"b": other is missing'),
        (NUMBER, "number = 5", "number = 4.5", '"b": the wrong number 4.5 is within'),
        (ORDER, ', why = "2"', "", '"c": why of steps 2 is missing'),
        (ORDER, ', {text = "three", why = "3"}', "", '"c": steps: three or more'),
        (ORDER, '"three"', '"two"', '"c": steps: three or more are needed, no two of them alike'),
        (ORDER, "[c]", "[c", "made.toml is not TOML"),
    ],
)
def test_a_fault_in_a_question_names_file_question_and_field(tmp_path, question, old, new, fault):
    path = tmp_path / "made.toml"
    path.write_text(question)
    assert len(load(path)) == 1
    path.write_text(question.replace(old, new))
    with pytest.raises(ValueError, match="made.toml.*" + fault if "TOML" not in fault else fault):
        load(path)


def test_the_page_shows_the_questions_asked_for_as_text_and_its_names_are_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(selfcheck, "FOLDER", tmp_path)
    (tmp_path / "made.toml").write_text(CHOOSE.replace("Which?", "`a < b` & <i>?") + NUMBER + ORDER)
    one, other, last = self_check("made").data, self_check("made").data, self_check("made", "c", "a").data
    assert len({re.search('id="(.*?)"', page)[1] for page in (one, other, last)}) == 3
    assert "@" not in one and "http" not in one
    assert "<legend><code>a &lt; b</code> &amp; &lt;i&gt;?</legend>" in one
    assert re.findall('data-kind="(.*?)"', one.partition("</style>")[2]) == ["choose", "number", "order"]
    assert re.findall('data-kind="(.*?)"', last.partition("</style>")[2]) == ["order", "choose"]
    assert re.findall('<li data-key="(.)">', last.partition("</fieldset>")[0]) != ["0", "1", "2"]
    for wrong in (("nowhere",), ("made", "z")):
        with pytest.raises(ValueError, match="it must be one of"):
            self_check(*wrong)
