"""Two processes with half the vectors each keep the same codebook as one process with all of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from vqvae_lib import EMAVectorQuantizer, VectorQuantizer

UPDATES, VECTORS, SIZE, DIM = 50, 96, 24, 5
OPTIONS = {"decay": 0.9, "restart_threshold": 0.3, "seed": 3}


def batch(update: int) -> torch.Tensor:
    """The vectors of one update (VECTORS, DIM) float64: a cluster that moves, so that codes die and are restarted."""
    generator = torch.Generator().manual_seed(update)
    z = torch.randn(VECTORS, DIM, generator=generator, dtype=torch.float64)
    return z * 0.3 + torch.tensor([update * 0.2, 0, 0, 0, 0], dtype=torch.float64)


def follow(part: slice, **options: float) -> dict[str, torch.Tensor]:
    """Feed a new quantizer UPDATES batches, of each only `part`; its state in the end."""
    quantizer = EMAVectorQuantizer(SIZE, DIM, **{**OPTIONS, **options}).double().train()
    for update in range(UPDATES):
        quantizer(batch(update)[part])
    return {name: value.detach().clone() for name, value in quantizer.state_dict().items()}


def worker(rank: int, store: str, out: str, shares: tuple[int, int]) -> None:
    """One of the two processes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    part = slice(0, shares[0]) if rank == 0 else slice(shares[0], VECTORS)
    torch.save(follow(part), f"{out}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("shares", [(48, 48), (30, 66)], ids=["halves", "unequal"])
def test_two_processes_follow_one(tmp_path: Path, shares: tuple[int, int]) -> None:
    start = "fork" if sys.platform == "linux" else "spawn"  # a fork need not import everything again
    mp.start_processes(worker, (str(tmp_path / "store"), str(tmp_path), shares), nprocs=2, start_method=start)
    alone = follow(slice(None))
    without = follow(slice(None), restart_threshold=0.0)
    assert not torch.allclose(alone["codebook"], without["codebook"]), "no code was restarted: nothing is shown of it"
    for rank in (0, 1):
        state = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert state.keys() == alone.keys()
        for name, value in alone.items():
            assert torch.allclose(state[name], value, rtol=0, atol=1e-9), f"rank {rank}: {name}"


def test_one_process_needs_no_group() -> None:
    assert not dist.is_initialized()
    quantizer = VectorQuantizer(SIZE, DIM).train()
    assert quantizer(torch.randn(VECTORS, DIM)).indices.shape == (VECTORS,)
