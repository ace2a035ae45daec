"""Mutation testing: change one thing in a module, and see whether its tests notice.

    python tools/mutants.py [MODULE ...] [--sample 30]

mutmut skips decorated functions, here all those under ``torch.no_grad``; cosmic-ray imports PyTorch again for each
mutant. This imports it once and forks, so it needs Linux or macOS. Defaults, strings, messages and types stay as they
are. A sample is the mutants with the smallest hashes of their lines, so an edit elsewhere does not change it.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import importlib
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader

from project import ROOT

NEEDED = 0.9  # share of the mutants that tests have to notice
MODULES = ("lookup", "quantizer", "newer", "model", "trainer", "prior", "transformer", "vae", "ar_vae")
TESTED_WITH = {"ar_vae": "vae", "transformer": "prior"}  # the others with tests/test_MODULE*.py
HEAVY = ("pytest", "hypothesis", "torch", "torch.distributed", "torchvision", "matplotlib.pyplot")
PAIRS = "Lt LtE, Gt GtE, Eq NotEq, Is IsNot, In NotIn, And Or, Add Sub, Mult Div, BitOr BitAnd"
SWAPS = dict([pair.split() for pair in PAIRS.split(", ")] + [pair.split()[::-1] for pair in PAIRS.split(", ")])
SWAPS |= dict.fromkeys(("FloorDiv", "Mod", "Pow"), "Mult")
LEFT_OUT = {"annotation", "returns", "defaults", "kw_defaults", "decorator_list", "exc", "msg"}


def instead_of(node: ast.AST) -> ast.AST | None:
    """What could stand in a node's place."""
    match node:
        case ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.AugAssign(op=op) if type(op).__name__ in SWAPS:
            new = {"op": getattr(ast, SWAPS[type(op).__name__])()}
        case ast.Compare(ops=[op, *others]):
            new = {"ops": [getattr(ast, SWAPS[type(op).__name__])(), *others]}
        case ast.Constant(value=bool() | int() | float() as value):
            new = {"value": not value if isinstance(value, bool) else value + 1}
        case ast.If(test=test) | ast.IfExp(test=test):
            new = {"test": ast.UnaryOp(ast.Not(), test)}
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            return operand
        case ast.Expr(value=ast.Call(func=called)) if not ast.unparse(called).startswith(("log.", "warnings.")):
            return ast.Pass()
        case ast.Return(value=ast.expr()):
            return ast.Return(ast.Constant(None))
        case _:
            return None
    return type(node)(**(dict(ast.iter_fields(node)) | new))


def mutants_of(text: str) -> list[tuple[str, str]]:
    """Source and description of each mutant of a module, in the order in which samples take them."""
    tree, lines, found = ast.parse(text), text.splitlines(), {}

    def visit(node: ast.AST) -> None:
        for field, value in ast.iter_fields(node):
            default = field == "value" and isinstance(node, ast.AnnAssign)  # of a field of a dataclass
            for i, child in enumerate(value if isinstance(value, list) else [value]):
                if field in LEFT_OUT or default or not isinstance(child, ast.AST) or isinstance(child, ast.JoinedStr):
                    continue
                if new := instead_of(child):
                    setattr(node, field, [*value[:i], new, *value[i + 1 :]] if isinstance(value, list) else new)
                    old, become = (ast.unparse(one).partition("\n")[0] for one in (child, new))
                    what = f"{lines[child.lineno - 1].strip()}  |  {old}  ->  {become}"
                    same = sum(other.startswith(what) for other in found)  # the same change of such a line
                    found[what + " again" * same] = ast.unparse(ast.fix_missing_locations(tree)), child.lineno
                    setattr(node, field, value)
                visit(child)

    visit(tree)
    in_order = sorted(found, key=lambda what: hashlib.sha256(what.encode()).digest())
    return [(found[what][0], f"{found[what][1]}: {what}") for what in in_order]


def run_tests(module: str, source: str) -> int:
    """Run a module's tests in this process, with other source for the module where it is given; an exit status."""
    path, get_code = str(ROOT / "vqvae_lib" / f"{module}.py"), SourceFileLoader.get_code
    if source:
        signal.alarm(300)  # seconds; after that it counts as noticed
        mutant = compile(source, path, "exec")
        SourceFileLoader.get_code = lambda one, name: mutant if one.get_filename(name) == path else get_code(one, name)
    os.environ |= {"VQVAE_EXAMPLES": "15", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # Jupyter's plugins take a second
    name = f"test_{TESTED_WITH.get(module, module)}"
    tests = [str(file) for file in (ROOT / "tests").glob(f"{name}*.py")] or [name]
    options = ["-x", "-oaddopts=", "-pno:terminal", "-pno:cacheprovider", "-mnot no_mutants"]
    return int(sys.modules["pytest"].main([*options, *tests]))


def in_processes(tasks: list[tuple[str, str, str]]) -> Iterator[tuple[str, str, bool]]:
    """Run the tests of each (module, source, what) in a forked process: module, what, and whether they passed."""
    running, waiting = {}, tasks[::-1]
    while waiting or running:
        if waiting and len(running) < os.cpu_count():
            module, source, what = waiting.pop()
            if child := os.fork():
                running[child] = module, what
                continue
            os.setpgid(0, 0)
            os._exit(run_tests(module, source))
        child, status = os.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what its tests have started
        yield *running.pop(child), status == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", default=MODULES, metavar="MODULE", help=f"among {', '.join(MODULES)}")
    parser.add_argument("--sample", type=int, help="how many of each module's mutants to try")
    options, tasks, lived = parser.parse_args(), [], Counter()
    for module in options.modules:
        text = (ROOT / "vqvae_lib" / f"{module}.py").read_text(encoding="utf-8")
        tasks += [(module, source, what) for source, what in mutants_of(text)[: options.sample]]
    for name in HEAVY:
        importlib.import_module(name)
    for module, _, passed in in_processes([(module, "", "") for module in options.modules]):
        if not passed:
            sys.exit(f"{module}: its tests fail before any change. Fix them first.")
    for module, what, passed in in_processes(tasks):
        if passed:
            lived[module] += 1
            print(f"survived  {module}.py:{what}", flush=True)
    alive = sum(lived.values())
    print(f"all: {len(tasks) - alive} of {len(tasks)} mutants killed, {NEEDED:.0%} required; survivors: {dict(lived)}")
    return int(len(tasks) - alive < NEEDED * len(tasks))


if __name__ == "__main__":
    sys.exit(main())
