"""Self-checks in a browser: what each answer earns, by keyboard, in both themes, on a phone, and without scripts."""

from __future__ import annotations

import pytest
import vendor

from vqvae_book import selfcheck
from vqvae_book.selfcheck import self_check

SHELL = '<!doctype html><html lang="en" data-theme="{theme}"><title>Page</title><body><main><h1>Page</h1>{html}{html2}'
MADE = """[pick]
kind = "choose"
ask = "Which `code`?"
options = [
  {text = "this", why = "Not this."},
  {text = "that", why = "It is that."},
  {text = "it", why = "So.", right = true},
]
[count]
kind = "number"
ask = "How many?"
answer = 1764
tolerance = 0.5
why = "All of them."
other = "Count again."
wrong = [{number = -0.25, why = "That is a share."}]
[order]
kind = "order"
ask = "In which order?"
why = "In this one."
steps = [{text = "one", why = "A"}, {text = "two", why = "B"}, {text = "three", why = "C"}, {text = "four", why = "D"}]
"""


@pytest.fixture
def html(tmp_path, monkeypatch) -> str:
    """A page with two blocks of the same questions."""
    (tmp_path / "made.toml").write_text(MADE, encoding="utf-8")
    monkeypatch.setattr(selfcheck, "FOLDER", tmp_path)
    return SHELL.format(theme="light", html=self_check("made").data, html2=self_check("made").data)


@pytest.fixture
def shown(page, html):
    """The page, whose every request is held against it."""
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.set_content(html)
    yield page
    assert asked == []


def question(page, asks: str, block: int = 0):
    return page.get_by_role("group", name="Self-check").nth(block).get_by_role("group", name=asks)


def verdict(shown) -> str:
    return shown.locator("[aria-live=polite]").inner_text()


def check(shown) -> str:
    shown.get_by_role("button", name="Check").click()
    return verdict(shown)


def test_every_option_earns_its_own_explanation(shown):
    pick = question(shown, "Which code?")
    assert check(pick) == "Choose an answer first."
    for option, said in (("this", "Not yet. Not this."), ("that", "Not yet. It is that."), ("it", "Right. So.")):
        pick.get_by_role("radio", name=option, exact=True).check()
        assert verdict(pick) == ""  # what was said of another answer goes
        assert check(pick) == said
    pick.get_by_role("button", name="Try again").click()
    assert verdict(pick) == ""
    assert pick.get_by_role("radio", checked=True).count() == 0
    assert pick.get_by_role("radio").first.evaluate("radio => radio === document.activeElement")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("1764", "Right. All of them."),
        ("1,764.4", "Right. All of them."),
        ("-1764", "Not yet. Count again."),
        ("1.764", "Not yet. Count again."),
        ("0", "Not yet. Count again."),  # it is not an empty field, nor the share: that is far smaller than the answer
        (" −0,25 ", "Not yet. That is a share."),
        ("", "Give a number first, such as 0.25."),
        ("many", "Give a number first, such as 0.25."),
    ],
)
def test_a_number_is_read_as_it_is_written(shown, given, said):
    count = question(shown, "How many?")
    count.get_by_label("Your answer").press_sequentially(given)
    count.get_by_label("Your answer").press("Enter")
    assert verdict(count) == said


def steps(order) -> list[str]:
    return order.locator("ol > li > span").all_inner_texts()


def test_steps_are_put_in_order_by_keyboard_alone_and_the_focus_goes_with_them(shown):
    order, page = question(shown, "In which order?"), shown
    start = steps(order)
    assert start == ["three", "two", "one", "four"]
    assert check(order) == "Not yet. “three” comes too early. C"
    order.get_by_role("button", name="Down: three").focus()
    page.keyboard.press("Enter")
    assert verdict(order) == "“three” is now step 2 of 4."
    page.keyboard.press("Space")
    assert steps(order) == ["two", "one", "three", "four"]
    assert check(order) == "Not yet. “two” comes too early. B"
    order.get_by_role("button", name="Up: one").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Down: one"  # it can't go up further
    assert check(order) == "Right. In this one."
    order.get_by_role("button", name="Try again").click()
    assert steps(order) == start


def test_two_blocks_of_the_same_questions_do_not_meet(shown):
    one, other = (question(shown, "Which code?", block) for block in (0, 1))
    one.get_by_role("radio", name="it", exact=True).check()
    other.get_by_role("radio", name="this").check()
    assert (check(one), check(other)) == ("Right. So.", "Not yet. Not this.")
    ids = shown.evaluate("[...document.querySelectorAll('[id]')].map((element) => element.id)")
    assert len(ids) == len(set(ids)) == 2


def test_the_tabulator_reaches_all_that_can_be_used(shown):
    reached = []
    for _ in range(11):
        shown.keyboard.press("Tab")
        reached.append(shown.evaluate("document.activeElement.ariaLabel ?? document.activeElement.textContent"))
    moves = ["Down: three", "Up: two", "Down: two", "Up: one", "Down: one", "Up: four"]
    assert reached == ["", "Check", "", "Check", *moves, "Check"]


def test_without_scripts_the_questions_are_read_and_the_answers_are_folded(browser, html):
    page = browser.new_page(java_script_enabled=False)
    page.set_content(html)
    for text in ("Which code?", "this", "In which order?", "How many?"):
        assert page.get_by_text(text, exact=True).first.is_visible()
    assert page.get_by_role("button").count() == page.get_by_role("radio").count() == 0
    assert not page.get_by_text("So.").first.is_visible()
    page.get_by_text("Answer").first.click()
    assert page.get_by_text("Right: it").first.is_visible() and page.get_by_text("So.").first.is_visible()
    page.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_the_screen_and_can_be_read_in_either_theme(page, html, width, theme, scripts):
    page.set_viewport_size({"width": width, "height": 844})
    page.set_content(html.replace('data-theme="light"', f'data-theme="{theme}"', 1))
    for block in (0, 1):  # a right answer in one, a wrong one in the other
        pick = question(page, "Which code?", block)
        pick.get_by_role("radio").nth(2 * block).check()
        check(pick)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.add_script_tag(path=vendor.AXE)
    found = page.evaluate("axe.run()")
    assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []
