"""Numbers of chapters, sections, figures, tables, equations and exercises, written into plain Markdown.

Each counts through a chapter in reading order. What is new gets a word for a number, `**Figure 5.usage.** A caption.`,
`\\tag{5.usage}`, and the text refers to it so, "Figure 5.usage", "(5.usage)". `make format` makes a number of each, and
changes every reference in the book, and those to equations in the library, along with it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping

LABEL = r"(?:\d+|A)\.\w+"
DEFINED = re.compile(
    rf"(?P<code>^```.*?^```)|^## (?:(?P<Section>(?:\d+|A)\.\d+) )?(?P<title>[^\n]+)$"
    rf"|^### Exercise (?P<Exercise>{LABEL})$|^\*\*Figure (?P<Figure>{LABEL})\.\*\*"
    rf"|^\*\*Table (?P<Table>{LABEL})\.\*\*|\\tag\{{(?P<Equation>[^}}]+)\}}",
    re.MULTILINE | re.DOTALL,
)
NAMED = re.compile(rf"\b(Figure|Table|Section|Exercise)s? {LABEL}(?:(?:,| and|, and| to| or) {LABEL})*", re.IGNORECASE)
EQUATION = re.compile(rf"(?<![\w)\]])\({LABEL}\)|\\tag\{{{LABEL}\}}")
# In code "(2.5)" may be a number: what counts is one behind a word, at the start of a line, or behind another one.
IN_CODE = re.compile(
    rf"(?<=[^\W\d][ ,])\({LABEL}\)|(?<=[^\W\d][,.:;] )\({LABEL}\)|(?<=[)\]], )\({LABEL}\)|^\s*\({LABEL}\)", re.MULTILINE
)
ANCHOR = re.compile(r"\]\(([\w./-]*)#([\w-]+)\)")
COUNTED = r"^a?\d+-"  # how an anchor begins where its heading has a number
PLAIN = {"Summary", "Exercises", "References"}  # sections that need no number
Known = dict[str, dict[str, str]]  # kind -> label as it stands -> number


def chapter(page: str) -> str:
    """The number in a page's path, "A" for the appendix, "" for a page that has none."""
    found = re.match(r"(\d\d)_", page)
    return str(int(found[1])) if found else "A" * page.startswith("inside_the_library")


def defined(page: str, text: str) -> Iterator[tuple[str, str, str]]:
    """Kind, label and number of all that a page's Markdown defines."""
    counts, base = dict.fromkeys(DEFINED.groupindex, 0), ""
    for found in DEFINED.finditer(text):
        kind = next((k for k in ("Section", "Exercise", "Figure", "Table", "Equation") if found[k]), "Section")
        if found["code"] or found["title"] in PLAIN:
            continue
        label = found[kind] or f"{page}: {found['title']}"
        letter = label[-1] if re.fullmatch(r"\w+\.\d+[a-z]", label) else ""
        if not letter or label[:-1] != base:  # (1.8a) and (1.8b) share a number
            counts[kind] += 1
        base = label[:-1] if letter else ""
        yield kind, label, f"{chapter(page)}.{counts[kind]}{letter}"


def known(pages: Mapping[str, str]) -> Known:
    """The numbers of all that the chapters define; pages are named by their paths below `chapters/`."""
    numbers: Known = {}
    for page in filter(chapter, pages):
        for kind, label, number in defined(page, pages[page]):
            if label in numbers.setdefault(kind, {}):
                raise ValueError(f"{page}: {kind} {label} is defined twice. Remedy: give one of them another name")
            numbers[kind][label] = number
    return numbers


def referring(text: str, numbers: Known, equation: re.Pattern = IN_CODE) -> str:
    """Text with its captions, tags and references numbered."""

    def labels(kind: str, words: str) -> str:
        return re.sub(LABEL, lambda found: numbers.get(kind, {}).get(found[0], found[0]), words)

    text = NAMED.sub(lambda found: labels(found[1].capitalize(), found[0]), text)
    return equation.sub(lambda found: labels("Equation", found[0]), text)


def numbered(page: str, text: str, numbers: Known) -> str:
    """Markdown of a page, whole or a cell of it, with all of that and its headings numbered."""

    def section(found: re.Match) -> str:
        number = numbers.get("Section", {}).get(found[1] or f"{page}: {found[2]}")
        return f"## {number} {found[2]}" if number and found[2] not in PLAIN else f"## {found[2]}"

    if chapter(page) not in ("", "0"):  # the introduction's sections have no numbers
        text = re.sub(r"\A# (?:(?:\d+|A)\. )?", f"# {chapter(page)}. ", text)
        text = re.sub(r"^## (?:((?:\d+|A)\.\d+) )?(.+)$", section, text, flags=re.MULTILINE)
    return referring(text, numbers, EQUATION)


def slugs(text: str) -> dict[str, str]:
    """The anchors that site and GitHub give a page's headings, by what they are without their numbers."""
    titles = re.findall(r"^#{1,6} (.+)$", DEFINED.sub(lambda f: "" if f["code"] else f[0], text), re.MULTILINE)
    found = [re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles]
    return {re.sub(COUNTED, "", slug): slug for slug in found}


def linked(page: str, text: str, anchors: Mapping[str, Mapping[str, str]]) -> str:
    """Text whose links lead to the headings as they are numbered."""

    def anchor(found: re.Match) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), found[1])) if found[1] else page
        slug = anchors.get(target, {}).get(re.sub(COUNTED, "", found[2]), found[2])
        return f"]({found[1]}#{slug})"

    return ANCHOR.sub(anchor, text)
