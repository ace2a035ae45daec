"""The quantizer's mathematics and its state: which loss moves what, moving averages, restarts, start and freeze."""

from __future__ import annotations

import copy
import sys
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from helpers import HALVES, INTEGERS, both, brute_force, no_looks, normal, placed, same_bits, snapshot, trained
from torch import Tensor
from torch.multiprocessing import start_processes
from torch.nn.parallel import DistributedDataParallel

from vqvae_lib import VQVAEConfig, seeded
from vqvae_lib.lookup import code_sums, nearest_code
from vqvae_lib.metrics import perplexity, usage_counts
from vqvae_lib.quantizer import EMAVectorQuantizer, StraightThrough, VectorQuantizer


def check_gradients(kind: type, beta: float) -> None:
    """Assert the gradients of the quantizer's loss, written out by hand in float64."""
    before = normal(6, 3, seed=1, dtype=torch.float64)
    vq = placed(kind, before, commitment_cost=beta)
    z = normal(40, 3, dtype=torch.float64).requires_grad_()
    indices = brute_force(z, before)
    vq(z).loss.backward()
    difference = z.detach() - before[indices]
    torch.testing.assert_close(z.grad, 2 * beta * difference / z.numel())  # the commitment term moves the encoder
    if issubclass(kind, VectorQuantizer):
        pull = torch.zeros_like(before).index_add_(0, indices, -2 * difference / z.numel())
        torch.testing.assert_close(vq.codebook.grad, pull)  # the codebook term moves the codes, with weight 1
    else:
        assert list(vq.parameters()) == []  # nothing that an optimizer could move


class Swapped(VectorQuantizer):
    """The two terms' weights exchanged: a mistake of many public implementations."""

    def _loss(self, z: Tensor, codes: Tensor) -> Tensor:
        return F.mse_loss(codes.detach(), z) + self.commitment_cost * F.mse_loss(codes, z.detach())


@both
@pytest.mark.parametrize("beta", [0, 0.25, 1, 7])
def test_commitment_moves_the_encoder_and_the_codebook_term_the_codes(kind, beta):
    check_gradients(kind, beta)


def test_swapped_terms_have_the_same_value_and_are_caught_by_their_gradients():
    z, codebook = normal(40, 3), normal(6, 3, seed=1)
    right, wrong = (float(placed(kind, codebook)(z).loss.detach()) for kind in (VectorQuantizer, Swapped))
    assert right == wrong > 0
    with pytest.raises(AssertionError):
        check_gradients(Swapped, 0.25)


@both
@pytest.mark.parametrize("training", [True, False])
def test_straight_through_to_the_bit(kind, training):
    codebook = normal(6, 3, seed=1)
    vq = placed(kind, codebook).train(training)
    z = normal(2, 3, 4, 5).requires_grad_()
    out = vq(z)
    assert torch.equal(out.z_q.movedim(1, -1), codebook[out.indices])  # forward: the codes, before their update
    gradient = normal(2, 3, 4, 5, seed=2)
    out.z_q.backward(gradient)
    assert torch.equal(z.grad, gradient)  # backward: the gradient, unchanged
    assert vq.codebook.grad is None  # and nothing of it for the codes
    codes = normal(5, 3).requires_grad_()
    StraightThrough.apply(normal(5, 3).requires_grad_(), codes).sum().backward()
    assert codes.grad is None


@both
def test_what_the_quantizer_returns_may_be_changed_in_place(kind):
    """As a decoder does that begins with ``ReLU(inplace=True)``; the loss keeps the codes as they were."""
    gradients = []
    for relu in (torch.relu, torch.relu_):
        vq, z = placed(kind, normal(6, 3, seed=1)), normal(2, 3, 4).requires_grad_()
        out = vq(z)
        (relu(out.z_q).square().sum() + out.loss).backward()
        gradients.append(z.grad)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("decay", [0.0, 0.8, 0.99])
def test_ema_follows_counts_and_sums_computed_by_hand(decay):
    """The library moves codes by steps, equation (2.7); by hand we keep counts and sums, equation (2.6)."""
    e = normal(12, 3, seed=1, dtype=torch.float64)
    vq = placed(EMAVectorQuantizer, e, decay=decay)
    N = torch.ones(12, dtype=torch.float64)
    m = N[:, None] * e
    for step in range(8):
        z = 0.7 * normal(64, 3, seed=10 + step, dtype=torch.float64)
        one_hot = F.one_hot(brute_force(z, e), 12).double()
        n, s = one_hot.sum(0), one_hot.T @ z
        N, m = decay * N + (1 - decay) * n, decay * m + (1 - decay) * s
        e = torch.where(N[:, None] > 0, m / N[:, None], e)
        vq(z)
        torch.testing.assert_close(vq.usage, N, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(vq.codebook, e, rtol=1e-10, atol=1e-12)


def test_counts_and_codes_warm_up_with_one_decay_that_grows_to_its_limit():
    vq = placed(EMAVectorQuantizer, normal(8, 3, seed=1, dtype=torch.float64), decay=0.9)
    vq.updates.zero_()
    decays = []
    for step in range(100):
        z = normal(64, 3, seed=step, dtype=torch.float64)
        e, N = vq.codebook.clone(), vq.usage.clone()
        n, s = code_sums(z, vq(z).indices, 8)
        code = (N - n).abs().argmax()
        g = (vq.usage[code] - n[code]) / (N[code] - n[code])  # what the counts were averaged with
        decays.append(float(g))
        m = g * N[:, None] * e + (1 - g) * s
        torch.testing.assert_close(vq.codebook, m / vq.usage[:, None], rtol=1e-6, atol=1e-9)
    assert decays[:3] == pytest.approx([1 / 10, 2 / 11, 3 / 12])
    assert all(a <= b + 1e-9 for a, b in pairwise(decays))
    assert decays[-1] == pytest.approx(0.9)


def test_unused_codes_stand_exactly_still_and_come_back_finite():
    codebook = torch.tensor([[0.0, 0.0], [1.0, 1.0], [50.0, -50.0], [-70.0, 70.0]])
    vq = placed(EMAVectorQuantizer, codebook, decay=0.5)
    for z in 0.3 * normal(200, 8, 2):
        vq(z)
    assert vq.usage[2] == 0  # 0.5^200 is nothing in float32
    assert torch.equal(vq.codebook[2:], codebook[2:])
    vq(torch.tensor([[51.0, -50.0]]))  # after all that time, one vector
    torch.testing.assert_close(vq.codebook[2], torch.tensor([51.0, -50.0]), rtol=0, atol=1e-3)


@both
def test_a_restarted_code_survives_the_next_update(kind):
    codebook, live = normal(8, 2, seed=1, dtype=torch.float64), slice(0, 7)
    codebook[7] = 1e3
    vq, z = placed(kind, codebook, restart_threshold=0.3), normal(256, 2, dtype=torch.float64)
    n, _ = code_sums(z, nearest_code(z, codebook), 8)
    vq.usage.copy_(n)  # all live codes at what they win; the last at none
    vq.usage[live].clamp_(min=float(n.mean()) / 2)

    vq(z)
    moved, place, share = vq.codebook.detach().clone(), vq.codebook[7].detach().clone(), vq.usage[7].clone()
    assert (z == place).all(1).any()  # onto a vector of the batch
    assert share == pytest.approx(float(vq.usage[live].mean()), rel=0.2)  # with about the mean use
    if kind is VectorQuantizer:
        assert torch.equal(moved[live], codebook[live])  # live codes are left alone

    n, s = code_sums(z, vq(z).indices, 8)
    assert n[7] >= 1
    expected = place + (0.1 * (s[7] - n[7] * place) / vq.usage[7] if kind is EMAVectorQuantizer else 0)
    torch.testing.assert_close(vq.codebook[7].detach(), expected)  # an ordinary update, not another restart
    torch.testing.assert_close(vq.usage[7], 0.9 * share + 0.1 * n[7])


@both
@pytest.mark.parametrize(("threshold", "use", "restarted"), [(0.25, 1.0, False), (0.25, 0.9, True), (0, 0, False)])
def test_the_threshold_is_a_fraction_of_the_mean_use(kind, threshold, use, restarted):
    """A fourth of the mean use of (1, 5, 5, 5) is 1, all of it exact in float32."""
    far = torch.tensor([[1e3, 1e3]])
    vq = placed(kind, torch.cat([far, torch.eye(2), -torch.ones(1, 2)]), restart_threshold=threshold, decay=0.5)
    z = torch.cat([torch.eye(2), -torch.ones(1, 2)]).repeat(5, 1)  # five vectors on each code but the first
    vq.usage.copy_(torch.tensor([2 * use, 5, 5, 5]))
    vq(z)
    assert torch.equal(vq.codebook[:1], far) is not restarted
    assert float(vq.usage[0]) == (pytest.approx(15.9 / 4) if restarted else use)


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALVES])
@pytest.mark.parametrize("scale", [1e-2, 1e3])
def test_the_start_places_the_codes_whatever_their_scale(kind, scale, dtype):
    vq, z = kind(64, 8).to(dtype), (scale * (3 + normal(1000, 8))).to(dtype)
    vq.initialize(z)
    assert vq.usage.sum() == 1000 and vq.usage.min() > 0  # every vector is counted once, and no count starts at 0
    assert perplexity(usage_counts(vq.assign(z), 64)) > 32
    assert float(vq.codebook.detach().std()) == pytest.approx(scale, rel=0.5)
    before = snapshot(vq)
    vq.initialize(5 + z)
    assert same_bits(vq.state_dict(), before)  # it starts once


@both
def test_as_many_vectors_as_codes_become_the_codes_each_once(kind):
    vq, z = kind(16, 4), normal(16, 4)
    vq.initialize(z)
    assert sorted(vq.codebook.tolist()) == sorted(z.tolist())


@both
def test_a_uniform_codebook_fills_its_range_and_finds_few_codes(kind):
    vq, z = kind(64, 8, init="uniform"), 3 + normal(1000, 8)
    before = snapshot(vq)
    vq.initialize(z)
    assert same_bits(vq.state_dict(), before)
    assert 0.9 / 64 < vq.codebook.max() <= 1 / 64 and -1 / 64 <= vq.codebook.min() < -0.9 / 64
    assert perplexity(usage_counts(vq.assign(z), 64)) < 8


@both
@pytest.mark.parametrize("init", ["data", "uniform"])
@pytest.mark.parametrize("missing", [{"usage", "updates"}, {"updates"}, set(), None])
def test_a_codebook_that_was_set_or_loaded_is_kept(kind, init, missing):
    vq, mine, z = kind(16, 4, init=init, restart_threshold=0), trained(kind), normal(64, 4, seed=7)
    if missing is None:
        vq.codebook.data.copy_(mine.codebook)
    else:
        weights = {name: value for name, value in mine.state_dict().items() if name not in missing}
        assert {*vq.load_state_dict(weights, strict=False).missing_keys} == missing
    vq.initialize(z)
    assert torch.equal(vq.codebook, mine.codebook)
    usage = mine.usage if missing in (set(), {"updates"}) else usage_counts(mine.assign(z), 16).float()
    assert torch.equal(vq.usage, usage)
    if missing != set():  # no short first averages, which would soon replace it
        torch.testing.assert_close(vq.usage, 0.9 * usage + 0.1 * usage_counts(vq(1 + z).indices, 16))


@both
def test_training_without_a_start_is_said_once(kind):
    z, loaded, silent = normal(64, 4), kind(16, 4), kind(16, 4)
    loaded.load_state_dict(trained(kind).state_dict())
    with pytest.warns(UserWarning, match="initialize"):
        silent(z)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for vq in (silent, kind(16, 4).eval(), kind(16, 4, init="uniform"), trained(kind, 0), loaded):
            copy.deepcopy(vq)(z)


@both
@pytest.mark.parametrize("way", ["freeze", "requires_grad_"])
def test_a_frozen_codebook_stands_still_and_thaws(kind, way):
    vq = trained(kind)
    optimizer = torch.optim.Adam([vq.codebook if kind is VectorQuantizer else torch.zeros(1)])
    for frozen in (False, True, False):  # at first it moves, so Adam has momentum
        if way == "freeze" or kind is EMAVectorQuantizer:  # which has no parameters
            vq.freeze(frozen)
        else:
            vq.codebook.requires_grad_(not frozen).grad = None
        assert vq.frozen == frozen
        before = snapshot(vq)
        for step in range(20):  # vectors far away: codes die
            z = (9 + normal(64, 4, seed=step)).requires_grad_()
            out = vq.train()(z)
            (out.loss + out.z_q.sum()).backward()
            assert z.grad.abs().sum() > 0
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)  # zeros stay, and with them momentum would move
        assert same_bits(vq.state_dict(), before) == frozen
    vq = kind(16, 4)
    vq.freeze()
    vq.initialize(normal(64, 4))
    assert torch.equal(vq.codebook, kind(16, 4).codebook)  # nor is it started


@both
@pytest.mark.parametrize("init", ["data", "uniform"])
def test_seed_and_generator_fix_every_bit(kind, init):
    def run(seed: int, draws: int) -> dict[str, Tensor]:
        with seeded(draws):
            return snapshot(trained(kind, 4, k=32, init=init, seed=seed))

    first = run(0, 0)
    assert same_bits(first, run(0, 0))
    assert not torch.equal(first["codebook"], run(0, 1)["codebook"])  # other restarts
    assert not torch.equal(kind(4, 2, seed=0).codebook, kind(4, 2, seed=1).codebook)
    before = torch.get_rng_state()
    kind(4, 2, seed=10**19)
    assert torch.equal(torch.get_rng_state(), before)  # making one draws nothing from the caller's generator


@both
@pytest.mark.parametrize("steps", [0, 3])
def test_looking_codes_up_moves_nothing(kind, steps):
    vq, z = trained(kind, steps), 5 + normal(64, 4)
    before, random = snapshot(vq), torch.get_rng_state()
    indices = vq.train().assign(z)
    assert torch.equal(vq.lookup(indices), vq.codebook[indices])
    assert torch.equal(vq.eval()(z).indices, indices)
    assert same_bits(vq.state_dict(), before)
    assert torch.equal(torch.get_rng_state(), random)


@both
@pytest.mark.parametrize("way", ["state_dict", "deepcopy", "AveragedModel"])
def test_all_state_travels(kind, way):
    vq = trained(kind, 4)
    assert all(value.is_contiguous() for value in vq.state_dict().values())  # as safetensors asks
    other = copy.deepcopy(vq) if way == "deepcopy" else kind(16, 4, restart_threshold=0.5)
    if way == "state_dict":
        other.load_state_dict(vq.state_dict())
    elif way == "AveragedModel":
        average = torch.optim.swa_utils.AveragedModel(other)
        average.update_parameters(vq)
        other = average.module
    assert same_bits(dict(other.state_dict()), dict(vq.state_dict()))
    runs = []
    for quantizer in (vq, other):
        with seeded(1):
            runs.append([tuple(quantizer(normal(64, 4, seed=step))) for step in range(4, 8)])
    assert same_bits(*runs)
    assert same_bits(dict(other.state_dict()), dict(vq.state_dict()))
    assert int(other.updates) == 8


@both
@pytest.mark.parametrize("training", [True, False])
def test_inside_autocast_the_quantizer_stays_in_float32(kind, training):
    codebook = normal(512, 64, seed=1)
    z = normal(512, 64).bfloat16()  # what a convolution inside autocast hands over
    expected = nearest_code(z.float(), codebook)
    vq = placed(kind, codebook).train(training)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(vq.assign(z), expected)
        out = vq(z.requires_grad_())
    assert out.z_q.dtype == out.loss.dtype == vq.codebook.dtype == vq.usage.dtype == torch.float32
    assert torch.equal(out.indices, expected)
    (out.loss + out.z_q.sum()).backward()
    assert z.grad.isfinite().all()


@both
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("way", ["cast", "assigned", "default"])
def test_half_precision_counts_right(kind, dtype, way):
    """A codebook in bfloat16 would count no further than 256; a rounded one would pass for one that was set."""
    torch.set_default_dtype(dtype if way == "default" else torch.float32)
    vq = kind(4, 2, init="uniform", restart_threshold=0)
    torch.set_default_dtype(torch.float32)
    vq.to(dtype)
    assert torch.equal(vq.codebook, kind(4, 2).codebook)
    if way == "assigned":
        vq.load_state_dict({name: v.to(dtype) if v.dim() else v for name, v in vq.state_dict().items()}, assign=True)
    z = normal(64, 2, 28, 28).to(dtype).requires_grad_()
    for _ in range(2):
        vq(z).loss.backward()
    assert vq.usage.sum() == pytest.approx(z.numel() / 2, rel=0.02)
    assert vq.usage.dtype == vq.codebook.dtype == torch.float32
    assert vq.codebook.abs().max() < 3
    assert z.grad.dtype == dtype
    assert [type(one) for one in vq.parameters()] == [torch.nn.Parameter] * (kind is VectorQuantizer)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_lookup_takes_integers_of_any_kind_in_range(dtype):
    vq = placed(EMAVectorQuantizer, normal(5, 3))
    indices = torch.tensor([[4, 0], [1, 1]]).to(dtype)
    expected = vq.codebook[indices.long()].movedim(-1, 1)
    assert torch.equal(vq.lookup(indices), expected)
    assert torch.equal(vq.lookup(indices.numpy()), expected)
    for wrong in (indices.float(), indices.bool(), indices.long() + 1, indices.long() - 1):
        with pytest.raises(ValueError, match="indices"):
            vq.lookup(wrong)


@both
@pytest.mark.parametrize("method", ["__call__", "initialize", "assign"])
@pytest.mark.parametrize("shape", [(2, 5, 3, 3), (4,), (0, 4, 3, 3), (2, 4, 0), (2, 4)])
def test_input_of_the_wrong_shape_or_kind_raises_and_moves_nothing(kind, shape, method):
    vq = kind(8, 4)
    before = snapshot(vq)
    with pytest.raises(ValueError, match="z_e"):
        getattr(vq, method)(torch.zeros(shape, dtype=torch.int64 if shape == (2, 4) else torch.float32))
    assert same_bits(vq.state_dict(), before)


@both
def test_bad_arguments_raise_and_numpys_numbers_are_numbers(kind):
    bad = {"num_embeddings": (0, 2.0), "embedding_dim": (0, "4"), "init": ("zeros",), "seed": (-1, None)}
    bad |= {"commitment_cost": (-0.1, True), "decay": (-0.1, 1.0), "restart_threshold": (-0.1, 1.0)}
    for name, value in [(name, value) for name, values in bad.items() for value in values]:
        with pytest.raises(ValueError, match=f"^{name} = "):
            kind(**{"num_embeddings": 8, "embedding_dim": 4, name: value})
    with pytest.raises(ValueError, match="embedding_dim = 0"):
        kind.from_config(VQVAEConfig(), 0)
    ours = kind(8, 4, 0.5, decay=0.25, seed=3)
    theirs = kind(np.int64(8), np.uint8(4), np.float32(0.5), decay=np.float16(0.25), seed=np.int32(3))
    for name in ("num_embeddings", "embedding_dim", "commitment_cost", "decay", "seed"):
        assert type(getattr(theirs, name)) is type(getattr(ours, name)) and getattr(theirs, name) == getattr(ours, name)
    assert same_bits(dict(theirs.state_dict()), dict(ours.state_dict()))


UPDATES, PARTS = 50, (slice(0, 48), slice(48, 96))  # two shares of 96 vectors


def batch(update: int) -> Tensor:
    """The vectors of one update (96, 5) float64: a cluster that moves, so that codes die and are restarted."""
    return 0.3 * normal(96, 5, seed=update, dtype=torch.float64) + update * 0.2 * torch.eye(5)[0]


def follow(part: slice, *, distributed: bool = False, seed: int = 0, threshold: float = 0.3) -> dict[str, Tensor]:
    """Feed a new quantizer UPDATES batches, of each only ``part``; its state in the end."""
    vq = EMAVectorQuantizer(24, 5, restart_threshold=threshold).double()
    vq.distributed = distributed
    with seeded(seed):
        vq.initialize(batch(0)[part])
        for update in range(UPDATES):
            vq(batch(update)[part])
    return snapshot(vq)


def worker(rank: int, folder: str) -> None:
    """One of two processes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    told = {"together": follow(PARTS[rank], distributed=True, seed=rank), "alone": follow(PARTS[rank])}
    vq = trained(EMAVectorQuantizer) if rank == 0 else EMAVectorQuantizer(16, 4, restart_threshold=0.5)
    told["own"], vq.distributed = snapshot(vq), True
    model = DistributedDataParallel(torch.nn.Sequential(torch.nn.Linear(4, 4), vq))
    told["loaded"] = snapshot(vq)  # a file that one process alone has read
    model(normal(64, 4, seed=rank)).loss.backward()
    told["trained"] = snapshot(vq)
    told["uneven"] = [vq._draw(batch(0).split([n, 96 - n])[rank]) for n in (30, 66)]
    with pytest.MonkeyPatch.context() as patch:  # as on a GPU, where each step draws
        for module in ("_util", "lookup", "quantizer"):
            patch.setattr(f"vqvae_lib.{module}.can_look", lambda tensor: False)
        with no_looks():
            vq(normal(64, 4, seed=rank))
    torch.save(told, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_follow_one_or_do_not_mix(tmp_path):
    start = "fork" if sys.platform == "linux" else "spawn"  # a fork need not import everything again
    start_processes(worker, (str(tmp_path),), nprocs=2, start_method=start)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    one = follow(slice(None))
    assert not torch.allclose(one["codebook"], follow(slice(None), threshold=0)["codebook"])  # codes are restarted
    for told, part in zip(ranks, PARTS, strict=True):
        for name, value in one.items():
            torch.testing.assert_close(told["together"][name], value, rtol=0, atol=1e-9)
        assert same_bits(told["alone"], follow(part))  # each its own codebook, unless told to share one
        assert same_bits(told["loaded"], ranks[0]["own"])
    assert same_bits(ranks[0]["trained"], ranks[1]["trained"])
    assert not same_bits(ranks[0]["trained"], ranks[0]["loaded"])
    assert same_bits(ranks[0]["uneven"], ranks[1]["uneven"])
    assert all((drawn[:, None] == batch(0)).all(-1).any(1).all() for drawn in ranks[0]["uneven"])
