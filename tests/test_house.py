"""The house's own promises: how large its parts are, what may import what, and what is in the wheel."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import notebooks
import pytest
from hatchling.builders.wheel import WheelBuilder
from project import ROOT, chapters, imports

import vqvae_lib

LIBRARY = sorted((ROOT / "vqvae_lib").glob("*.py"))
BOOK = sorted((ROOT / "vqvae_book").rglob("*.py"))
CHECKS = [path for path in BOOK if path.parent.name == "checks"]
LAB = sorted((ROOT / "vqvae_book" / "lab").iterdir())
TOOLS = [path for path in (ROOT / "tools").rglob("*") if path.suffix in {".py", ".js", ".mjs", ".json", ".toml"}]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
# From the ground up: a module imports those before it.
LAYERS = """_util config metrics pretrained lookup quantizer newer model standin data running checkpoint trainer
vqvae_trainer prior transformer vae ar_vae viz __init__""".split()  # noqa: SIM905
BASE = {"torch", "torchvision", "numpy", "tqdm"}
LAZY = {"matplotlib", "PIL", "IPython", "safetensors"}  # inside functions alone


def lines(*paths: Path) -> int:
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)


def named(*modules: str) -> list[Path]:
    return [ROOT / "vqvae_lib" / f"{module}.py" for module in modules]


@pytest.mark.parametrize(
    ("paths", "most"),
    [
        # 2,800, and what came after the plain codebook: 400 for quantizers, 180 for a transformer over codes, and 130
        # for the settings that choose among them, for making them, and for what both share; 70 for shipped weights; 45
        # for residual blocks and a third halving.
        pytest.param(LIBRARY, 3_625, id="vqvae_lib"),
        pytest.param(named("trainer", "checkpoint"), 420, id="trainer and checkpoint"),
        # 3,000, and 350 each for choosing K and beta, the appendix, and the claims page, whose code stood in notebooks;
        # 100 for shipped weights, 150 for the lab's files, 100 of the 240 lines that compare seven quantizers, and 90
        # for what is claimed of them; 450 for color: 215 for its experiments and the geometry of codebooks, 65 for
        # bits of pixels, 130 for what is said of codebooks on one dataset and judged on others.
        pytest.param([path for path in BOOK if path not in CHECKS], 4_950, id="vqvae_book"),
        # 2,000, and the page's shell with its style sheet, 240; 70 for drawing with a model that the page has trained;
        # 30 for what a newcomer stumbled over.
        pytest.param([path for path in LAB if path.suffix in {".js", ".html"}], 2_340, id="the lab in the browser"),
        pytest.param(CHECKS, 100 * 11, id="checks of exercises, by chapter"),
        # 1,200, and what writes numbers, captions, reading times and buttons, sets the math, and cuts what pages load;
        # 20 for the PDF: pictures of what moves, palettes, running heads; 55 for a served site that follows its prose;
        # 5 for the lab's files; 55 for how fast pages open; 10 to read a page from top to bottom before it is judged;
        # 5 for a kernel whose port was taken.
        pytest.param(TOOLS, 1_630, id="tools"),
        # 5,500, and what holds self-checks, checks of exercises, claims, verdicts, numbers, playground and explorer;
        # 10 for what the PDF shows of what moves, and for its pages that code fills;
        # 940 for the newer quantizers, their agreement with vector-quantize-pytorch, and the transformer;
        # 80 for pages without a network and prose without an execution;
        # 980 for shipped weights and the lab: parity, stations, every way to use them, training, and a trained model.
        # 70 for chapter 10's experiments, residual blocks and a third halving; 80 for its claims and exercises;
        # 275 for chapter 11's experiments, its likelihood, its exercises, and sentences judged on several datasets.
        pytest.param(TESTS, 9_615, id="tests"),
    ],
)
def test_a_part_of_the_house_is_no_longer_than_it_may_be(paths, most):
    assert 0 < lines(*paths) <= most


def test_no_file_of_the_library_is_longer_than_an_evening_allows():
    assert {path.name: lines(path) for path in LIBRARY if lines(path) > 400} == {}


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
def test_a_module_of_the_library_imports_those_below_it_alone(path):
    assert path.stem in LAYERS, "Remedy: give the new module its place in LAYERS"
    found = {name for name in imports(path.read_text(encoding="utf-8"), "vqvae_lib") if "." in name}
    ours = {name.split(".")[1] for name in found if name.startswith("vqvae_lib.")} & set(LAYERS)
    assert {name for name in ours if LAYERS.index(name) >= LAYERS.index(path.stem)} == set()
    others = {name.split(".")[0] for name in found} - {"vqvae_lib"} - sys.stdlib_module_names
    assert others <= BASE | LAZY


@pytest.mark.slow
def test_importing_the_library_loads_nothing_that_draws_or_shows():
    code = (
        "import sys, vqvae_lib; print(*{'matplotlib.pyplot', 'ipywidgets', 'IPython', 'vqvae_book'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == []


def test_code_that_pages_show_has_at_most_88_columns():
    found = [
        f"{path.name}: {line}"
        for path in [*LIBRARY, *BOOK]
        for line in path.read_text(encoding="utf-8").splitlines()
        if len(line) > 88
    ]
    for path in chapters():
        cells = [cell.source for cell in notebooks.read(path).cells if cell.cell_type == "code"]
        found += [f"{path.name}: {line}" for cell in cells for line in cell.splitlines() if len(line) > 88]
    assert found == []


def test_the_wheel_has_both_packages_whole_and_nothing_else(tmp_path):
    [wheel] = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = [path for folder in ("vqvae_lib", "vqvae_book") for path in (ROOT / folder).rglob("*") if path.is_file()]
    assert packed == {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    assert {"vqvae_lib/py.typed", "vqvae_book/py.typed", "vqvae_book/playground.html"} <= packed
    for folder in ("runs", "studies", "measured"):
        assert any(name.startswith(f"vqvae_book/{folder}/") for name in packed)


def test_every_test_asserts_something():
    """Itself, or in a function of ours that it calls."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in TESTS]
    parts = {f: list(ast.walk(f)) for tree in trees for f in ast.walk(tree) if isinstance(f, ast.FunctionDef)}
    asserting = {f.name for f in parts if any(isinstance(node, ast.Assert) for node in parts[f])}
    asserting |= {"raises", "warns", "assert_close", "expect"}
    for f in parts:
        names = {ast.unparse(node.func).split(".")[-1] for node in parts[f] if isinstance(node, ast.Call)}
        assert not f.name.startswith("test_") or asserting & {f.name, *names}, f.name


def test_the_packages_unpickle_nothing():
    """A file from outside can't run code: torch reads plain tensors and values alone, NumPy its plain arrays."""
    for path in [*LIBRARY, *BOOK]:
        text = path.read_text(encoding="utf-8")
        assert not {"pickle", "joblib", "dill", "shelve", "marshal"} & imports(text) and "allow_pickle" not in text, (
            path
        )
        calls = [ast.unparse(node) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
        assert all("weights_only=True" in call for call in calls if call.startswith("torch.load(")), path


def test_the_version_is_that_of_the_distribution():
    assert vqvae_lib.__version__ == version("vqvae_lib")
