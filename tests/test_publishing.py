"""What the published book promises: links that agree, names that exist, workflows that do no more than they say."""

from __future__ import annotations

import ast
import pkgutil
import re
from collections.abc import Iterator
from types import SimpleNamespace

import book_site
import notebooks
import project
import pytest
import repository
import torch
import yaml

import vqvae_lib

PAGES = [*project.chapters(), *sorted((project.ROOT / "chapters").rglob("*.md"))]
README = (project.ROOT / "README.md").read_text(encoding="utf-8")
MODULES = [module.name for module in pkgutil.walk_packages(vqvae_lib.__path__, "vqvae_lib.")]
WORKFLOWS = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted((project.ROOT / ".github" / "workflows").glob("*.yml"))
}
FORK = {"GITHUB_REPOSITORY": "Someone/fork", "GITHUB_SHA": "0" * 40}

# Names in the prose that are neither the library's nor in the page's own code.
OTHERS = {
    "VQModel": "of diffusers",
}
# Things of the library that a page builds for itself, in a form of its own.
BUILT = {"01_maths": {"gaussian_kl"}}  # the mean over rows; the library's gives every number

# Numbers with a decimal point or a percent sign that are typed in the prose and are no results of ours.
TYPED = {
    "chapters/01_maths": {"1.44": "bits in a nat"},
    "chapters/03_encoder_decoder": {"2.25": "9/4, counted from the layers"},
    "chapters/04_training": {"0.9": "a setting that an exercise asks for"},
    "chapters/how_checked": {"1.32": "the version of a package"},
    "chapters/solutions/04_training": {"0.87": "(1 + t)/(10 + t) at t = 60"},
}
# In prose these hold numbers that are not results: code, equations, links' targets, and references to equations,
# exercises and papers.
NO_RESULT = re.compile(
    r"`[^`]*`|\$\$.*?\$\$|\\begin\{align\}.*?\\end\{align\}|\$[^$]*\$|\]\([^)]*\)"
    r"|\(\d+\.\d+[a-z]?\)|(?i:exercises?|equations?) \d+\.\d+|(?:arXiv|doi):\S+",
    re.DOTALL,
)
DECIMAL = re.compile(r"(?<![\w.])(?:\d[\d,]*)?\.\d+(?:\s?%)?|\b\d[\d,]*\s?%")
QUOTES = re.compile(r"\bpaper\b|https://|arXiv:|doi:")  # a paragraph with one of these may give the numbers of others


def prose_and_code(path) -> tuple[str, list[str]]:
    """The Markdown of a page without fenced blocks, and the sources of its code cells."""
    if path.suffix == ".md":
        prose, code = path.read_text(encoding="utf-8"), []
    else:
        cells = notebooks.read(path).cells
        prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        code = [cell.source for cell in cells if cell.cell_type == "code"]
    return notebooks.FENCE.sub("", prose), code


def words(code: str) -> Iterator[str]:
    """Every name, attribute, argument and string in Python code; nothing for a cell that is no valid Python."""
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return
    for node in ast.walk(tree):
        for field in ("id", "attr", "arg", "name", "asname"):
            if isinstance(value := getattr(node, field, None), str):
                yield from value.split(".")
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.fixture(scope="module")
def library_words() -> set[str]:
    """Names in the library's code, torch's own, and words of what builds the book: variables, files, programs."""
    files = sorted((project.ROOT / "vqvae_lib").rglob("*.py"))
    known = {word for file in files for word in words(file.read_text(encoding="utf-8"))}
    build = [*(project.ROOT / "tools").glob("*.py"), project.ROOT / "Makefile", project.ROOT / ".ci" / "run"]
    known |= {word for file in build for word in re.findall(r"\w+", file.read_text(encoding="utf-8"))}
    known |= {
        name for space in (torch, torch.Tensor, torch.nn, torch.nn.parallel, torch.utils.data) for name in dir(space)
    }
    return known | {file.stem for file in files} | {"vqvae_lib"}


def unknown_names(prose: str, known: set[str]) -> set[str]:
    """Python names between backticks with a part that is not in `known`."""
    spans = re.findall(r"(?<!`)`([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(?:\([^`\n]*\))?`(?!`)", prose)
    return {span for span in spans if not all(part in known for part in span.split("."))}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(project.ROOT / "chapters").as_posix())
def test_names_in_the_prose_exist(path, library_words):
    prose, code = prose_and_code(path)
    own = {word for source in code for word in words(source)}
    assert unknown_names(prose, library_words | own | OTHERS.keys()) == set()


def test_a_name_that_does_not_exist_is_found(library_words):
    prose = "`kmeans` and `VQVAE.encode(x)`, but `nearest_codes`, `VQVAE.encoded(x)`, `make book` and ``x``"
    assert unknown_names(prose, library_words) == {"nearest_codes", "VQVAE.encoded"}


def number(text: str) -> float:
    value = float(text.rstrip("% ").replace(",", ""))
    return value / 100 if text.endswith("%") else value


def typed_results(prose: str, code: list[str]) -> list[str]:
    """Decimals and shares in the prose that are neither settings, which the page's code has too, nor quoted."""
    settings = {float(found) for source in code for found in re.findall(r"(?<![\w.])\d*\.?\d+(?:e-?\d+)?", source)}
    own = [part for part in prose.split("\n\n") if not QUOTES.search(part)]
    found = DECIMAL.findall(NO_RESULT.sub(" ", "\n\n".join(own)))
    return [text for text in found if number(text) not in settings]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(project.ROOT / "chapters").as_posix())
def test_no_result_is_typed(path):
    """Sentences about results are made by the run that shows them; see CONTRIBUTING."""
    page = path.relative_to(project.ROOT).with_suffix("").as_posix()
    assert [text for text in typed_results(*prose_and_code(path)) if text not in TYPED.get(page, {})] == []


def test_a_typed_result_is_found_and_settings_equations_and_quotations_are_not():
    prose = "At 0.25 the error is .0021, with 84 % of the codes.\n\nEquation (1.5), exercise 2.4, $x > 0.3$, `0.7`.\n\n"
    quoted = "The paper reports 4.67 bits.\n\nA test on 12.5 images, in 2.5 s."
    assert typed_results(prose + quoted, ["fit(beta=0.25)"]) == [".0021", "84 %", "12.5", "2.5"]


@pytest.mark.parametrize("path", project.chapters(), ids=lambda path: path.stem + path.parent.name)
def test_library_code_is_shown_from_the_library(path):
    """A page shows a public thing of the library with `source(...)`, and defines none of that name itself."""
    public = {name for name, thing in vars(vqvae_lib).items() if callable(thing)}
    fences = re.findall(r"^```python\n(.*?)^```", "\n".join(c.source for c in notebooks.read(path).cells), re.M | re.S)
    defined = set()
    for source in [*prose_and_code(path)[1], *fences]:
        defined |= set(re.findall(r"^(?:def|class) (\w+)", source, re.M))
    assert (defined & public) - BUILT.get(path.stem, set()) == set()


def test_the_references_have_every_paper_that_a_page_cites():
    number = r"arXiv:(\d{4}\.\d{4,5})"
    listed = set(re.findall(number, (project.ROOT / "chapters" / "references.md").read_text(encoding="utf-8")))
    cited = {found for path in PAGES for found in re.findall(number, path.read_text(encoding="utf-8"))}
    assert listed
    assert cited - listed == set()


def test_the_api_reference_has_every_module():
    shown = re.findall(r"automodule:: (\S+)", (project.ROOT / "chapters" / "api.md").read_text(encoding="utf-8"))
    packages = {module.name for module in pkgutil.walk_packages(vqvae_lib.__path__, "vqvae_lib.") if module.ispkg}
    assert sorted(shown) == sorted(set(MODULES) - packages), "Remedy: an automodule line in chapters/api.md"


@pytest.mark.parametrize(
    ("name", "site"),
    [
        ("Someone/Book", "https://someone.github.io/Book/"),
        ("Someone/someone.github.io", "https://someone.github.io/"),
    ],
)
def test_the_site_is_where_pages_puts_it(name, site):
    assert project.site_address({"GITHUB_REPOSITORY": name}) == site


def configured(monkeypatch, recorded: str, environment: dict[str, str]) -> SimpleNamespace:
    """What the Sphinx extension makes of an empty configuration."""
    for name in FORK:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(project, "recorded_repository", lambda: recorded)
    config = SimpleNamespace(html_theme_options={})
    book_site.add_links(None, config)
    return config


def test_without_an_address_no_button_is_shown(monkeypatch):
    assert vars(configured(monkeypatch, "", {})) == {"html_theme_options": {}}
    assert project.install_source({}) == ""


@pytest.mark.parametrize("environment", [{}, FORK])
def test_all_places_agree_on_the_repository(monkeypatch, environment):
    """Buttons, canonical links, the set-up cell of a published notebook and the README follow one address."""
    recorded = "https://github.com/Owner/Book"
    config = configured(monkeypatch, recorded, environment)
    url = "https://github.com/Someone/fork" if environment else recorded
    site = "https://someone.github.io/fork/" if environment else "https://owner.github.io/Book/"
    assert config.html_theme_options["repository_url"] == url
    assert config.html_theme_options["launch_buttons"]["colab_url"].startswith("https://colab.")
    assert config.html_baseurl == config.ogp_site_url == site
    commit = "@" + "0" * 40 if environment else ""
    assert f'git+{url}{commit}\\"' in notebooks.published(project.chapters()[0])
    assert url in repository.paragraph(url, site)
    assert f"<{site}>" in repository.paragraph(url, site)


def test_the_readme_says_where_the_repository_is_or_that_nobody_knows():
    [paragraph] = repository.PARAGRAPH.findall(README)
    url = project.recorded_repository()
    expected = repository.paragraph(url, project.site_address({})) if url else "address is not set yet"
    assert expected in paragraph


def steps(workflow: dict) -> list[dict]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_actions_are_pinned_by_commit_with_their_version_beside():
    for path in (project.ROOT / ".github" / "workflows").glob("*.yml"):
        used = [line for line in path.read_text(encoding="utf-8").splitlines() if "uses:" in line]
        assert used, path.name
        assert all(re.search(r"uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line) for line in used), path.name


def test_workflows_call_make_and_nothing_else():
    targets = set(re.findall(r"^([a-z-]+):", (project.ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M))
    commands = [step["run"] for workflow in WORKFLOWS.values() for step in steps(workflow) if "run" in step]
    made = [found[1] for command in commands if (found := re.fullmatch(r"make ([a-z-]+) PYTHON=python", command))]
    [report] = [command for command in commands if not command.startswith("make ")]
    assert len(made) == len(commands) - 1
    assert set(made) <= targets
    assert set(re.findall(r"gh \w+ \w+", report)) == {"gh issue list", "gh issue comment", "gh issue create"}


def test_publishing_may_do_no_more_than_it_needs():
    workflow = WORKFLOWS["publish"]
    build, deploy = workflow["jobs"]["build"], workflow["jobs"]["deploy"]
    assert workflow["permissions"] == {}
    assert build["permissions"] == {"contents": "read"}
    assert deploy["permissions"] == {"pages": "write", "id-token": "write"}
    assert build["env"]["VQVAE_STAND_IN"] == "forbid"
    assert deploy["needs"] == "build"
    assert [step["uses"].split("@")[0] for step in deploy["steps"]] == ["actions/deploy-pages"]
    names = [step.get("run") or step["uses"].split("@")[0] for step in build["steps"]]
    order = [names.index(f"make {target} PYTHON=python") for target in ("test", "book", "check-site")]
    assert sorted(order) == order
    assert names[-1] == "actions/upload-pages-artifact"  # what is deployed is what has just passed


def test_tests_run_on_three_systems_with_the_oldest_and_the_newest_python():
    matrix = WORKFLOWS["tests"]["jobs"]["units"]["strategy"]["matrix"]
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    assert matrix["python"] == ["3.11", "3.13"]
