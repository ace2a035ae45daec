"""How the benchmarks measure: interleaved repetitions, medians, memory beyond inputs and outputs, and the machine."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from vqvae_book.results import MEASURED

RESULTS = Path(__file__).parent / "results"  # raw lines, to go on from


def _finish(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def interleaved(
    contenders: dict[str, Callable[[], object]], *, seconds: float = 6.0, device: str = "cpu"
) -> dict[str, float]:
    """Time contenders in turn, again and again, so that a slow moment of the machine meets all alike.

    Before each timed call the same function runs once untimed: the memory that another contender has left to be given
    back (milliseconds, after matrices of N x K) and the caches it has filled are not put to this one's account.

    Args:
        contenders: name -> function of no arguments.
        seconds: how long in all; at least five rounds are made.
        device: waited for before the clock is read.

    Returns:
        name -> median seconds.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for function in contenders.values():
        function()  # warm-up
    _finish(device)
    start = time.perf_counter()
    while time.perf_counter() - start < seconds or min(map(len, times.values())) < 5:
        for name, function in contenders.items():
            function()
            _finish(device)
            before = time.perf_counter()
            function()
            _finish(device)
            times[name].append(time.perf_counter() - before)
    return {name: statistics.median(values) for name, values in times.items()}


def peak_bytes(function: Callable[[], object], device: str = "cpu") -> int:
    """Measure the most memory that tensors held at once during a call, its result included.

    On CUDA the allocator says it; on the CPU the profiler records each allocation, and the running sum has its peak.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        function()
    held = peak = 0
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def machine(device: str) -> dict[str, Any]:
    """Describe where a result was obtained."""
    name = torch.cuda.get_device_name() if device == "cuda" else _processor()
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def report(suite: str, rows: list[dict[str, Any]], device: str, ran: dict[str, Any] | None = None) -> None:
    """Print rows as one table and write them, with the machine, where the book reads them, `vqvae_book/measured`.

    ran: where the rows were measured, if not here and now.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_text(row.get(name, "")) for name in columns] for row in rows]
    widths = [max(len(line[i]) for line in [columns, *cells]) for i in range(len(columns))]
    for line in [columns, *cells]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    MEASURED.mkdir(exist_ok=True)
    path = MEASURED / f"{suite}-{device}.json"
    path.write_text(json.dumps({"suite": suite, "machine": ran or machine(device), "rows": rows}, indent=1) + "\n")
    print(f"written to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
