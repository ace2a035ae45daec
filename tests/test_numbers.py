"""Numbers of sections, figures and equations: in reading order, and references with them."""

import posixpath

import nbformat
import notebooks
import project
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from numbers_of_book import ANCHOR, known, numbered, referring, slugs

FIRST = """# One

## Late
$$a \\tag{1.2a}$$ and $$b \\tag{1.2b}$$ come before $$c \\tag{1.new}$$, unlike f(1.2a).

**Figure 1.codes.** Where codes stand.

## 1.1 Early
See (1.1), (1.2b) and (1.new), Figures 1.codes and 1.1, [there](#11-early), and exercise 1.9.

**Figure 1.1.** Another.

```python
## Late: no heading, \\tag{1.3}
```

$$d \\tag{1.1}$$

## Exercises

### Exercise 1.9
"""
EXPECTED = """# 1. One

## 1.1 Late
$$a \\tag{1.1a}$$ and $$b \\tag{1.1b}$$ come before $$c \\tag{1.2}$$, unlike f(1.2a).

**Figure 1.1.** Where codes stand.

## 1.2 Early
See (1.3), (1.1b) and (1.2), Figures 1.1 and 1.2, [there](#12-early), and exercise 1.1.

**Figure 1.2.** Another.

```python
## Late: no heading, \\tag{1.3}
```

$$d \\tag{1.3}$$

## Exercises

### Exercise 1.1
"""


@pytest.fixture
def book(tmp_path):
    """A book of two chapters, a page without a number, and a module."""
    for name in ("chapters/solutions", "vqvae_lib", "vqvae_book"):
        (tmp_path / name).mkdir(parents=True)
    cells = [new_markdown_cell(part) for part in FIRST.split("\n\n", 1)]
    pages = {"01_one": cells, "02_two": [new_markdown_cell("# Two\n\nBy (1.new), [one](01_one.ipynb#late).")]}
    pages["02_two"].append(new_code_cell("x = 2 * (1.1)  # by (1.1)"))
    for name, made in pages.items():
        nbformat.write(new_notebook(cells=made), tmp_path / "chapters" / f"{name}.ipynb")
    (tmp_path / "chapters" / "notation.md").write_text("# Notation\n\n| (1.1) | Figure 1.codes |\n", encoding="utf-8")
    (tmp_path / "vqvae_lib" / "lookup.py").write_text('"""By (1.2b)."""\nx = [(1.1)]\n', encoding="utf-8")
    return tmp_path


def markdown(text):
    return "\n\n".join(c.source for c in nbformat.reads(text, as_version=4).cells if c.cell_type == "markdown")


def test_numbers_follow_the_order_of_reading_and_references_follow_them(book):
    texts = {path.relative_to(book).as_posix(): text for path, text in notebooks.book(book).items()}
    assert markdown(texts["chapters/01_one.ipynb"]).strip() == EXPECTED.strip()
    assert "By (1.2), [one](01_one.ipynb#11-late)." in texts["chapters/02_two.ipynb"]
    assert "x = 2 * (1.1)  # by (1.3)" in texts["chapters/02_two.ipynb"]
    assert texts["chapters/notation.md"] == "# Notation\n\n| (1.3) | Figure 1.1 |\n"
    assert texts["vqvae_lib/lookup.py"] == '"""By (1.1b)."""\nx = [(1.1)]\n'


def test_done_twice_nothing_changes_any_more(book):
    for _ in range(2):
        texts = notebooks.book(book)
        for path, text in texts.items():
            path.write_text(text, encoding="utf-8")
    assert notebooks.book(book) == texts


def test_two_things_of_one_name_are_an_error():
    with pytest.raises(ValueError, match=r"05_a\.ipynb.*5\.x"):
        known({"05_a.ipynb": "**Figure 5.x.** One.\n\n**Figure 5.x.** Two."})


def test_links_lead_to_headings_that_are_there():
    folder, pages = project.ROOT / "chapters", {}
    for path in [*project.chapters(), *folder.glob("*.md")]:
        text = path.read_text(encoding="utf-8")
        pages[path.relative_to(folder).as_posix()] = markdown(text) if path.suffix == ".ipynb" else text
    titles = {page: set(slugs(text).values()) for page, text in pages.items()}
    dead = []
    for page, text in pages.items():
        for target, anchor in ANCHOR.findall(text):
            there = posixpath.normpath(posixpath.join(posixpath.dirname(page), target)) if target else page
            caption = anchor.startswith(("figure-", "table-"))
            dead += [] if caption or anchor in titles[there] else [f"{page}: {target}#{anchor}"]
    assert dead == []


def test_references_in_the_book_lead_to_something_that_is_there():
    pages = {path: notebooks.read(path) for path in project.chapters()}
    folder = project.ROOT / "chapters"
    text = {path.relative_to(folder).as_posix(): "\n\n".join(c.source for c in n.cells) for path, n in pages.items()}
    there = known({page: markdown(nbformat.writes(pages[folder / page])) for page in text})
    marked = {kind: dict.fromkeys(labels, "0.there") for kind, labels in there.items()}
    for page, whole in text.items():  # what is not known keeps its number
        left = referring(numbered("", whole, marked), marked)
        found = [word for kind in ("Figure", "Table") for word in left.split(f"{kind} ")[1:] if word[:1].isdigit()]
        assert [word[:12] for word in found if not word.startswith("0.there")] == [], page
