"""Mutation testing: change one thing in a module, and see whether its tests notice.

python tools/mutants.py [module ...] [--sample 30] [--seed 0] [--seconds 90] [--jobs 2]

mutmut leaves decorated functions alone (here all that stands under ``torch.no_grad``), cosmic-ray starts an interpreter
for each mutant, which costs seconds for PyTorch alone. This one imports what is heavy once, and forks: Linux and macOS.
A first run, of the module as it is, notes which tests run which lines; for each mutant those come first, the quick ones
before the slow. Of each module at least one is tried. Ends with status 1 where too small a share of all was killed.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import importlib.machinery
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from project import ROOT

# module: the tests that are to notice, but for those marked no_mutants
TESTS = {
    "analysis": ["test_analysis.py"],
    "quantizer": ["test_quantizer.py", "test_properties.py", "test_model.py", "test_distributed.py"],
    "training": ["test_training.py", "test_hostile.py", "test_resume.py"],
    "prior": ["test_prior.py"],
    "vae": ["test_vae.py"],
}
HEAVY = (
    "coverage",
    "torch",
    "torchvision",
    "torch.distributed",
    "sklearn.cluster",
    "matplotlib.pyplot",
    "hypothesis",
    "pytest",
)
SWAPS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.LShift: ast.RShift,
}  # fmt: skip


def changed(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what could stand in a node's place."""
    other = copy.copy(node)
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in SWAPS:
        other.op = SWAPS[type(node.op)]()
        yield other
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        other.ops = [SWAPS[type(node.ops[0])](), *node.ops[1:]]
        yield other
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        other.value = not node.value if isinstance(node.value, bool) else node.value + 1
        yield other
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield node.operand
    elif isinstance(node, ast.If | ast.IfExp):
        other.test = ast.UnaryOp(ast.Not(), node.test)
        yield other
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield ast.Pass()
    elif isinstance(node, ast.Return) and ast.unparse(node) not in ("return", "return None"):
        yield ast.Return(ast.Constant(None))


def places(tree: ast.Module) -> list[tuple[ast.AST, str, int | None, ast.AST]]:
    """List the mutants of a module: (parent, field, place in a list, new node)."""
    found = []

    def visit(node: ast.AST) -> None:
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns") or (isinstance(node, ast.Raise) and field == "exc"):
                continue  # types and messages
            for i, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if not isinstance(child, ast.AST) or isinstance(child, ast.Import | ast.ImportFrom | ast.JoinedStr):
                    continue
                called = ast.unparse(child.value.func) if isinstance(getattr(child, "value", None), ast.Call) else ""
                if isinstance(child, ast.Expr) and called.startswith("log."):
                    continue
                found.extend((node, field, i, new) for new in changed(child))
                visit(child)

    visit(tree)
    return found


def mutate(tree: ast.Module, number: int) -> tuple[str, int, str, str]:
    """Return the source with one thing changed, and what that was: line, before, after."""
    parent, field, i, new = places(tree)[number]
    old = getattr(parent, field) if i is None else getattr(parent, field)[i]
    if i is None:
        setattr(parent, field, new)
    else:
        getattr(parent, field)[i] = new
    source = ast.unparse(ast.fix_missing_locations(tree))
    return source, old.lineno, ast.unparse(old).splitlines()[0], ast.unparse(new).splitlines()[0]


class Witnesses:
    """A pytest plugin: notes the seconds of each test and the lines of a module that it runs."""

    def __init__(self, path: str, file: Path) -> None:
        import coverage

        self.path, self.file, self.seconds = path, file, {}
        self.coverage = coverage.Coverage(data_file=None, config_file=False, include=[path])

    def pytest_sessionstart(self) -> None:
        self.coverage.start()

    def pytest_runtest_setup(self, item: Any) -> None:
        self.coverage.switch_context(item.nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration

    def pytest_sessionfinish(self) -> None:
        self.coverage.stop()
        by_line = self.coverage.get_data().contexts_by_lineno(self.path)
        self.file.write_text(json.dumps({"seconds": self.seconds, "by_line": by_line}))


class Order:
    """A pytest plugin: tests that run the changed line come first, and quick ones before slow ones."""

    def __init__(self, line: int, notes: dict[str, Any]) -> None:
        self.first, self.seconds = set(notes["by_line"].get(str(line), ())), notes["seconds"]

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items.sort(key=lambda item: (item.nodeid not in self.first, self.seconds.get(item.nodeid, 0.0)))


def run_tests(module: str, source: str | None, plugin: object) -> int:
    """Run a module's tests in this process, with other source for the module if it is given."""
    path = str(ROOT / "vqvae_lib" / f"{module}.py")
    get_code = importlib.machinery.SourceFileLoader.get_code

    def mutant(loader: importlib.machinery.SourceFileLoader, name: str) -> object:
        ours = source is not None and loader.get_filename(name) == path
        return compile(source, path, "exec") if ours else get_code(loader, name)

    importlib.machinery.SourceFileLoader.get_code = mutant
    os.environ |= {"VQVAE_EXAMPLES": "15", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # Jupyter's plugins take a second
    import pytest

    tests = [str(ROOT / "tests" / name) for name in TESTS[module]]
    options = ["-x", "-q", "-p", "no:cacheprovider", "--no-header", "-m", "not no_mutants"]
    return int(pytest.main([*options, *tests], plugins=[plugin]))


class Running(NamedTuple):
    """A process that runs the tests."""

    process: int
    what: str
    end: float

    def passed(self) -> bool | None:
        """Tell whether its tests passed: None while they run. One that takes too long is ended, and did not pass."""
        done, status = os.waitpid(self.process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        if time.monotonic() < self.end:
            return None
        os.killpg(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        return False


def start(module: str, source: str | None, plugin: object, what: str, limit: float) -> Running:
    """Fork a process that runs the tests."""
    child = os.fork()
    if child:
        return Running(child, what, time.monotonic() + limit)
    code = 1
    try:
        os.setpgid(0, 0)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        code = run_tests(module, source, plugin)
    finally:
        os._exit(code)


def observe(module: str) -> tuple[dict[str, Any], float]:
    """Run a module's tests on the module as it is: which test runs which lines, and how long all took."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "notes.json"
        clock = time.monotonic()
        path = str(ROOT / "vqvae_lib" / f"{module}.py")
        running = start(module, None, Witnesses(path, file), module, 600)
        while (passed := running.passed()) is None:
            time.sleep(0.02)
        if not passed:
            raise SystemExit(f"{module}: its tests fail as it is. Mend them first.")
        notes = json.loads(file.read_text())
        if not notes["by_line"]:
            raise SystemExit(f"{module}: the tests import it from elsewhere than {path}. Install this copy: make env.")
        return notes, time.monotonic() - clock


def attempt(module: str, options: argparse.Namespace) -> tuple[int, list[str]]:
    """Try a module's mutants: how many were tried, and which lived."""
    text = (ROOT / "vqvae_lib" / f"{module}.py").read_text(encoding="utf-8")
    numbers = list(range(len(places(ast.parse(text)))))
    if options.sample:
        numbers = sorted(random.Random(options.seed).sample(numbers, min(options.sample, len(numbers))))
    notes, seconds = observe(module)
    limit, begin = 10 + 4 * options.jobs * seconds, time.monotonic()
    running, tried, survivors = [], 0, []
    while numbers or running:
        if tried and time.monotonic() - begin >= options.seconds:
            numbers = []
        while numbers and len(running) < options.jobs:
            source, line, old, new = mutate(ast.parse(text), numbers.pop(0))
            what = f"vqvae_lib/{module}.py:{line}: {old}  ->  {new}"
            running.append(start(module, source, Order(line, notes), what, limit))
            tried += 1
        for process in list(running):
            passed = process.passed()
            if passed is not None:
                running.remove(process)
            if passed:
                survivors.append(process.what)
                print(f"survived  {process.what}", flush=True)
        time.sleep(0.02)
    print(f"{module}: {tried - len(survivors)} of {tried} mutants killed", flush=True)
    return tried, survivors


def main() -> int:
    there = [m for m, tests in TESTS.items() if all((ROOT / "tests" / test).exists() for test in tests)]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("modules", nargs="*", default=there, metavar="module", help=f"of {', '.join(there)}")
    parser.add_argument("--sample", type=int, help="so many of each module's mutants, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no mutant of a module after so many")
    parser.add_argument("--needed", type=float, default=0.9, help="share that has to be killed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at a time")
    options = parser.parse_args()

    sys.dont_write_bytecode = True
    for name in HEAVY:
        importlib.import_module(name)
    begin, tried, alive = time.monotonic(), 0, 0
    for module in options.modules:
        count, survivors = attempt(module, options)
        tried, alive = tried + count, alive + len(survivors)
    print(f"all: {tried - alive} of {tried} in {time.monotonic() - begin:.0f} s")
    return int(1 - alive / tried < options.needed)


if __name__ == "__main__":
    sys.exit(main())
