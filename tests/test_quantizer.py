"""The quantizer's mathematics: nearest code, which loss moves what, moving averages, restarts."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import same_bits
from sklearn.cluster import KMeans
from torch import Tensor

from vqvae_lib import (
    EMAVectorQuantizer,
    StraightThrough,
    VectorQuantizer,
    VQVAEConfig,
    VQVAETrainer,
    active_codes,
    code_sums,
    kmeans,
    nearest_code,
    perplexity,
    quantizer,
    usage_counts,
)
from vqvae_lib.quantizer import code_frequency, evaluating

both = pytest.mark.parametrize("kind", [VectorQuantizer, EMAVectorQuantizer], ids=lambda kind: kind.__name__)
LATE = 10**6  # so many updates that the decay's warm-up is over


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def whole(*shape: int, seed: int = 0, reach: int = 8) -> Tensor:
    """Whole numbers as float32: all products and sums are exact, so ties are true ties and equality is equality."""
    return torch.randint(-reach, reach + 1, shape, generator=torch.Generator().manual_seed(seed)).float()


def placed(kind: type, codebook: Tensor, **choices: object):
    """Make a quantizer in training whose codes stand where we put them and whose decay is past its warm-up."""
    vq = kind(*codebook.shape, **{"init": "uniform", "restart_threshold": 0, **choices}).to(codebook.dtype)
    vq.codebook.data.copy_(codebook)
    vq.updates = LATE
    return vq


def snapshot(vq: torch.nn.Module) -> dict:
    return {name: value.clone() for name, value in vq.state_dict().items()}


def distances(z: Tensor, codebook: Tensor) -> np.ndarray:
    """Squared distances in float64, one subtraction for each pair: (N, K)."""
    return np.square(z.double().numpy()[:, None] - codebook.double().numpy()).sum(-1)


# --- nearest code -----------------------------------------------------------------------------------------------------

SIZES = [(1, 1, 1), (1, 7, 3), (9, 1, 4), (64, 512, 64), (1000, 33, 1), (129, 1000, 16), (5000, 64, 8), (70, 40, 2)]


@pytest.mark.parametrize(("n", "k", "d"), SIZES)
def test_nearest_code_is_brute_forces_and_ties_go_to_the_first(n, k, d):
    z, codebook = whole(n, d, reach=3), whole(k, d, seed=1, reach=3)
    assert nearest_code(z, codebook).tolist() == distances(z, codebook).argmin(1).tolist()


def test_those_sizes_have_ties_so_that_the_first_is_put_to_the_test():
    table = distances(whole(1000, 1, reach=3), whole(33, 1, seed=1, reach=3))
    assert ((table == table.min(1, keepdims=True)).sum(1) > 1).any()


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1.0, 1e3])
@pytest.mark.parametrize(("n", "k", "d"), SIZES)
def test_nearest_code_is_as_near_as_float32_can_tell(n, k, d, scale):
    z, codebook = scale * normal(n, d), scale * normal(k, d, seed=1)
    table = distances(z, codebook)
    excess = table[np.arange(n), nearest_code(z, codebook).numpy()] - table.min(1)
    assert excess.max() <= 1e-6 * max(float(z.square().sum(1).max()), float(codebook.square().sum(1).max()))


def test_nearest_code_over_many_tiles_of_codes(monkeypatch):
    monkeypatch.setattr(quantizer, "TILE_CODES", 1000)
    side = 72
    codebook = torch.cartesian_prod(
        torch.arange(side), torch.arange(side)
    ).float()  # a grid: code (i, j) is i * side + j
    assert len(codebook) > 5 * quantizer.TILE_CODES
    z = torch.tensor([[0.0, 0.0], [31.2, 70.9], [side, side], [0.5, 0.5], [27.0, 55.5]])
    # of equally near codes the first, within a tile and across two (27 * 72 + 55 = 1999 and 2000)
    assert nearest_code(z, codebook).tolist() == [0, 31 * side + 71, side * side - 1, 0, 1999]


@pytest.mark.parametrize("tile", [1, 5000, 1 << 40])
def test_chunked_equals_whole(monkeypatch, tile):
    z, codebook = whole(1000, 8), whole(50, 8, seed=1)
    monkeypatch.setitem(quantizer.TILE, "cpu", tile)
    assert torch.equal(nearest_code(z, codebook), torch.from_numpy(distances(z, codebook).argmin(1)))


def test_the_scores_held_at_a_time_do_not_grow_with_the_vectors(monkeypatch):
    def held(n: int) -> list[int]:
        """Sizes of the blocks of scores, one after the other, for 64 codes."""
        blocks = []
        monkeypatch.setattr(
            torch, "addmm", lambda *args, out: blocks.append(torch.ops.aten.addmm.out(*args, out=out)) or out
        )
        nearest_code(normal(n, 8), normal(64, 8, seed=1))
        return [scores.numel() for scores in blocks]

    assert held(100) == [6400]  # at once, where a tile has the room
    assert max(held(50_000)) <= 1.5 * 2**20  # about 4 MiB of float32: the number of blocks is rounded
    monkeypatch.setitem(quantizer.TILE, "cpu", 8000)
    assert held(1000) == [8000] * 8
    assert held(3000) == [8000] * 24
    monkeypatch.setitem(quantizer.TILE, "cpu", 1)
    assert held(10) == [64] * 10  # a vector at a time, where a tile has no room for more


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e30])
@pytest.mark.parametrize("where", ["vector", "every code"])
def test_nearest_code_refuses_what_has_no_distance(bad, where):
    z, codebook = normal(5, 3), normal(4, 3, seed=1)
    (z[2:3] if where == "vector" else codebook)[:, 0] = bad
    if bad == 1e30 and where == "vector":
        assert nearest_code(z, codebook).shape == (5,)  # z itself is never squared
        return
    with pytest.raises(ValueError, match=r"NaN or infinite.*lower lr"):
        nearest_code(z, codebook)


def test_nearest_code_refuses_a_codebook_without_codes():
    with pytest.raises(ValueError, match="nearest_code met"):
        nearest_code(normal(5, 3), normal(0, 3))


# --- counts, k-means, perplexity --------------------------------------------------------------------------------------


def test_code_sums_are_those_of_one_hot_matrices():
    z, indices = whole(500, 6), torch.randint(9, (500,), generator=torch.Generator().manual_seed(2))
    one_hot = F.one_hot(indices, 11).double()
    counts, sums = code_sums(z, indices, 11)
    assert torch.equal(counts.double(), one_hot.sum(0))
    assert torch.equal(sums.double(), one_hot.T @ z.double())


def test_kmeans_is_scikit_learns_from_the_same_centres():
    z = normal(600, 3, dtype=torch.float64)
    theirs = KMeans(12, init=z[:12].numpy(), n_init=1, max_iter=8, tol=0, algorithm="lloyd").fit(z.numpy())
    centres, counts = kmeans(z, z[:12].clone(), iterations=theirs.n_iter_)
    torch.testing.assert_close(centres, torch.from_numpy(theirs.cluster_centers_), rtol=1e-9, atol=1e-9)
    assert counts.sum() == len(z)


def test_kmeans_leaves_a_centre_without_vectors_where_it_is():
    far = torch.tensor([[0.0, 0.0], [1e3, 1e3]])
    centres, counts = kmeans(normal(50, 2), far)
    assert counts.tolist() == [50, 0]
    assert torch.equal(centres[1], far[1])
    torch.testing.assert_close(centres[0], normal(50, 2).mean(0))


def test_kmeans_moves_a_centre_of_one_vector_onto_it():
    z = 10 * torch.eye(5)
    centres, counts = kmeans(z, z + 1)
    assert torch.equal(centres, z)
    assert counts.tolist() == [1] * 5


def test_kmeans_takes_ten_rounds_unless_told():
    z = normal(2000, 2)
    nine, ten, eleven = (kmeans(z, z[:40], iterations=rounds)[0] for rounds in (9, 10, 11))
    assert torch.equal(kmeans(z, z[:40])[0], ten)
    assert not torch.equal(nine, ten)
    assert not torch.equal(ten, eleven)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [([7, 0, 0, 0], 1), ([3, 3, 3, 3], 4), ([5, 5, 0, 0], 2), ([2, 1, 1], 2**1.5), ([1], 1), ([1] * 512, 512)],
)
@pytest.mark.parametrize("scale", [1, 1e-3, 1e9])
def test_perplexity_at_its_limits_and_between(counts, expected, scale):
    value = perplexity(torch.tensor(counts) * scale)
    assert value.dtype == torch.float64
    assert float(value) == pytest.approx(expected, rel=1e-6)


# --- which loss moves what --------------------------------------------------------------------------------------------


def check_gradients(kind: type, beta: float) -> float:
    """Assert the gradients of the quantizer's loss, written out by hand in float64; return the loss."""
    before = normal(6, 3, seed=1, dtype=torch.float64)
    vq = placed(kind, before, commitment_cost=beta)
    z = normal(40, 3, dtype=torch.float64).requires_grad_()
    indices = torch.from_numpy(distances(z.detach(), before).argmin(1))
    loss = vq(z).loss
    loss.backward()
    difference = z.detach() - before[indices]
    torch.testing.assert_close(z.grad, 2 * beta * difference / z.numel())  # the commitment term moves the encoder
    if issubclass(kind, VectorQuantizer):
        pull = torch.zeros_like(before).index_add_(0, indices, -2 * difference / z.numel())
        torch.testing.assert_close(vq.codebook.grad, pull)  # the codebook term moves the codes, with weight 1
    else:
        assert list(vq.parameters()) == []  # nothing that an optimiser could move
    return float(loss.detach())


class SwappedGradient(VectorQuantizer):
    """The two terms' weights exchanged: a mistake of many public implementations."""

    def _loss(self, z: Tensor, codes: Tensor) -> Tensor:
        return F.mse_loss(codes.detach(), z) + self.commitment_cost * F.mse_loss(codes, z.detach())


class SwappedEMA(EMAVectorQuantizer):
    """The commitment term with its stop-gradient on the wrong side."""

    def _loss(self, z: Tensor, codes: Tensor) -> Tensor:
        return self.commitment_cost * F.mse_loss(codes, z.detach()) + 0 * z.sum()


@both
@pytest.mark.parametrize("beta", [0, 0.25, 1, 7])
def test_commitment_moves_the_encoder_and_the_codebook_term_the_codes(kind, beta):
    check_gradients(kind, beta)


@pytest.mark.parametrize(("right", "wrong"), [(VectorQuantizer, SwappedGradient), (EMAVectorQuantizer, SwappedEMA)])
def test_swapped_terms_have_the_same_value_and_are_caught_by_their_gradients(right, wrong):
    z, codebook = normal(40, 3), normal(6, 3, seed=1)
    losses = [float(placed(kind, codebook).eval()(z).loss.detach()) for kind in (right, wrong)]
    assert losses[0] == losses[1] > 0
    with pytest.raises(AssertionError):
        check_gradients(wrong, 0.25)


@both
@pytest.mark.parametrize("training", [True, False])
def test_straight_through_to_the_bit(kind, training):
    codebook = normal(6, 3, seed=1)
    vq = placed(kind, codebook).train(training)
    z = normal(2, 3, 4, 5).requires_grad_()
    out = vq(z)
    assert torch.equal(
        out.z_q.movedim(1, -1), codebook[out.indices]
    )  # forward: the codes, as they were before the update
    gradient = normal(2, 3, 4, 5, seed=2)
    out.z_q.backward(gradient)
    assert torch.equal(z.grad, gradient)  # backward: the gradient, unchanged
    assert getattr(vq.codebook, "grad", None) is None  # and nothing of it for the codes


def test_straight_through_alone_hands_the_gradient_on():
    z, codes = normal(5, 3).requires_grad_(), normal(5, 3, seed=1).requires_grad_()
    out = StraightThrough.apply(z, codes)
    assert torch.equal(out, codes)
    (out * normal(5, 3, seed=2)).sum().backward()
    assert torch.equal(z.grad, normal(5, 3, seed=2))
    assert codes.grad is None


def test_the_gradient_codebook_is_moved_by_its_optimiser_alone():
    vq = placed(VectorQuantizer, normal(6, 3, seed=1))
    before = vq.codebook.detach().clone()
    loss = vq(normal(40, 3)).loss
    assert torch.equal(vq.codebook, before)
    optimiser = torch.optim.SGD(vq.parameters(), lr=1.0)
    loss.backward()
    optimiser.step()
    assert vq.eval()(normal(40, 3)).loss < loss


# --- moving averages --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.8, 0.99])
def test_ema_follows_counts_and_sums_computed_by_hand(decay):
    """The library moves codes by steps, equation (2.7); by hand we keep counts and sums, equation (2.6)."""
    e = normal(12, 3, seed=1, dtype=torch.float64)
    vq = placed(EMAVectorQuantizer, e, decay=decay)
    N = torch.ones(12, dtype=torch.float64)
    m = N[:, None] * e
    for step in range(8):
        z = 0.7 * normal(64, 3, seed=10 + step, dtype=torch.float64)
        one_hot = F.one_hot(torch.from_numpy(distances(z, e).argmin(1)), 12).double()
        n, s = one_hot.sum(0), one_hot.T @ z
        N, m = decay * N + (1 - decay) * n, decay * m + (1 - decay) * s
        e = torch.where(N[:, None] > 0, m / N[:, None], e)
        vq(z)
        torch.testing.assert_close(vq.usage, N, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(vq.codebook, e, rtol=1e-10, atol=1e-12)


def test_counts_and_codes_warm_up_with_one_decay_that_grows_to_its_limit():
    vq = placed(EMAVectorQuantizer, normal(8, 3, seed=1, dtype=torch.float64), decay=0.97)
    vq.updates = 0
    decays = []
    for step in range(300):
        z = normal(64, 3, seed=step, dtype=torch.float64)
        e, N = vq.codebook.clone(), vq.usage.clone()
        n, s = code_sums(z, vq(z).indices, 8)
        code = (N - n).abs().argmax()
        g = (vq.usage[code] - n[code]) / (N[code] - n[code])  # what the counts were averaged with
        decays.append(float(g))
        m = g * N[:, None] * e + (1 - g) * s
        torch.testing.assert_close(vq.codebook, m / vq.usage[:, None], rtol=1e-6, atol=1e-9)
    assert all(a <= b + 1e-9 for a, b in pairwise(decays))
    assert 0 <= decays[0] < decays[-1] - 1e-3  # by more than rounding
    assert decays[-1] == pytest.approx(0.97)


@pytest.mark.parametrize("decay", [0.5, 0.99])
def test_unused_codes_stand_exactly_still_and_come_back_finite(decay):
    codebook = torch.tensor([[0.0, 0.0], [1.0, 1.0], [50.0, -50.0], [-70.0, 70.0]])
    vq = placed(EMAVectorQuantizer, codebook, decay=decay)
    batches = 0.3 * normal(2000, 8, 2)
    for z in batches:
        vq(z)
    assert torch.equal(vq.codebook[2:], codebook[2:])
    assert vq.codebook.isfinite().all()
    vq(torch.tensor([[51.0, -50.0]]))  # after all that time, one vector
    torch.testing.assert_close(vq.codebook[2], torch.tensor([51.0, -50.0]), rtol=0, atol=1e-3)
    assert torch.equal(vq.codebook[3], codebook[3])


# --- restarts ---------------------------------------------------------------------------------------------------------


@both
def test_a_restarted_code_survives_the_next_update(kind):
    codebook = normal(8, 2, seed=1, dtype=torch.float64)
    codebook[7] = 1e3
    vq = placed(kind, codebook, restart_threshold=0.3, decay=0.9)
    z = normal(256, 2, dtype=torch.float64)
    n, _ = code_sums(z, nearest_code(z, codebook), 8)
    vq.usage.copy_(n)  # all live codes at what they win; the last at none
    vq.usage[:7].clamp_(min=float(n.mean()) / 2)
    live = torch.arange(7)

    vq(z)
    moved, place, share = vq.codebook.detach().clone(), vq.codebook[7].detach().clone(), vq.usage[7].clone()
    assert (z == place).all(1).any()  # onto a vector of the batch
    assert share == pytest.approx(float(vq.usage[live].sum() / 7), rel=0.2)  # with about the mean use
    if kind is VectorQuantizer:
        assert torch.equal(moved[live], codebook[live])  # live codes are left alone

    indices = vq(z).indices
    n, s = code_sums(z, indices, 8)
    assert n[7] >= 1
    expected = place + (0.1 * (s[7] - n[7] * place) / vq.usage[7] if kind is EMAVectorQuantizer else 0)
    torch.testing.assert_close(vq.codebook[7].detach(), expected)  # an ordinary update, not another restart
    torch.testing.assert_close(vq.usage[7], 0.9 * share + 0.1 * n[7])


@both
def test_each_restart_draws_anew(kind):
    vq = placed(kind, normal(8, 2, seed=1), restart_threshold=0.3)
    z, places = normal(256, 2), set()
    for _ in range(5):
        vq.codebook.data[7], vq.usage[7] = 1e3, 0  # far from every vector, and long unused
        vq(z)
        places.add(tuple(vq.codebook[7].tolist()))
    assert (1e3, 1e3) not in places
    assert len(places) > 1


@both
@pytest.mark.parametrize(("use", "restarted"), [(1.0, False), (0.9, True)], ids=["at the threshold", "below it"])
def test_the_threshold_is_a_fraction_of_the_mean_use(kind, use, restarted):
    """A fourth of the mean use of (1, 5, 5, 5) is 1, all of it exact in float32."""
    far = torch.tensor([[1e3, 1e3]])
    vq = placed(kind, torch.cat([far, torch.eye(2), -torch.ones(1, 2)]), restart_threshold=0.25, decay=0.5)
    z = torch.cat([torch.eye(2), -torch.ones(1, 2)]).repeat(5, 1)  # five vectors on each code but the first
    vq.usage.copy_(torch.tensor([2 * use, 5, 5, 5]))
    vq(z)
    assert torch.equal(vq.codebook[:1], far) is not restarted
    assert float(vq.usage[0]) == (pytest.approx(15.9 / 4) if restarted else use)


@both
def test_without_a_threshold_no_code_is_ever_restarted(kind):
    vq = placed(kind, torch.tensor([[0.0, 0.0], [99.0, 99.0]]), restart_threshold=0)
    vq.usage[1] = 0
    vq(normal(20, 2))
    assert vq.codebook[1].tolist() == [99, 99]


@both
def test_restarts_bring_a_collapsed_codebook_back_to_use(kind):
    vq = placed(kind, torch.cat([torch.zeros(1, 2), torch.full((31, 2), 99.0)]), restart_threshold=0.3, decay=0.5)
    z = normal(512, 2)
    used = [active_codes(usage_counts(vq(z).indices, 32)) for _ in range(12)]
    assert used[0] == 1
    assert used[-1] > 24


# --- initialisation and seeds -----------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1.0, 1e3])
def test_first_batch_places_the_codes_whatever_its_scale(kind, scale):
    vq = kind(64, 8, init="data")
    z = scale * (3 + normal(1000, 8))
    vq(z)
    assert perplexity(usage_counts(vq.eval()(z).indices, 64)) > 32
    assert float(vq.codebook.detach().std()) == pytest.approx(scale, rel=0.5)


@both
def test_the_first_batch_starts_the_counts_at_those_of_k_means(kind):
    """Every vector is counted once, before the average and after it: no count starts at 0 or from nowhere."""
    vq = kind(16, 4, init="data", restart_threshold=0)
    vq(normal(1000, 4))
    assert float(vq.usage.sum()) == pytest.approx(1000)
    assert vq.usage.min() > 0


def test_without_data_dependent_initialisation_the_first_batch_finds_few_codes():
    vq = VectorQuantizer(64, 8, init="uniform", restart_threshold=0)
    assert vq.codebook.detach().abs().max() <= 1 / 64
    with_offset = 3 + normal(1000, 8)  # the codes stand about 0, the vectors do not
    assert perplexity(usage_counts(vq.eval()(with_offset).indices, 64)) < 8


@both
@pytest.mark.parametrize(("n", "k"), [(1, 1), (1, 16), (5, 16), (16, 16), (40, 1)])
def test_few_vectors_and_few_codes_train(kind, n, k):
    vq = kind(k, 4)
    for step in range(5):
        out = vq(normal(n, 4, seed=step))
    assert vq.codebook.isfinite().all()
    assert vq.usage.isfinite().all()
    assert out.indices.max() < k


@both
def test_as_many_vectors_as_codes_become_the_codes_each_once(kind):
    vq, z = kind(16, 4), whole(16, 4, reach=100)
    vq(z)
    assert sorted(vq.codebook.tolist()) == sorted(z.tolist())


@both
def test_a_batch_of_equal_vectors_is_no_trouble(kind):
    vq = kind(8, 4)
    for _ in range(5):
        out = vq(torch.full((32, 4), 0.7))
    assert vq.codebook.isfinite().all()
    torch.testing.assert_close(out.z_q, torch.full((32, 4), 0.7))


@pytest.mark.parametrize("seed", [0, 42])
def test_a_uniform_codebook_is_no_copy_of_the_weights_of_the_same_seed(seed):
    model = VQVAETrainer(VQVAEConfig(init="uniform", seed=seed, device="cpu")).model
    first = torch.stack([model.vq.codebook.flatten()[:64], next(model.encoder.parameters()).detach().flatten()[:64]])
    assert float(first.corrcoef()[0, 1].abs()) < 0.5


@both
@pytest.mark.parametrize("seed", [2**45, 10**19])
def test_any_whole_number_is_a_seed(kind, seed):
    vq = kind(4, 2, seed=seed)
    vq(normal(20, 2))
    assert vq.codebook.isfinite().all()


def test_each_part_is_back_in_its_own_mode_after_an_evaluation():
    model = torch.nn.ModuleDict({"frozen": EMAVectorQuantizer(4, 2), "learning": EMAVectorQuantizer(4, 2)}).train()
    model["frozen"].eval()
    with evaluating(model):
        assert not any(part.training for part in model.modules())
    assert [model.training, model["frozen"].training, model["learning"].training] == [True, False, True]


def test_shares_are_exact_where_float32_can_no_longer_count():
    many = torch.zeros(2**24 + 8, dtype=torch.int64)
    many[-1] = 1
    share = code_frequency(many, 2)
    assert share.dtype == torch.float32
    torch.testing.assert_close(share, torch.tensor([1.0, 2**-24]), rtol=1e-6, atol=0)


@both
@pytest.mark.parametrize("init", ["data", "uniform"])
def test_same_seed_same_bits_other_seed_other_codes_and_no_one_elses_numbers(kind, init):
    def trained(seed: int) -> dict:
        vq = kind(32, 4, init=init, restart_threshold=0.5, seed=seed)
        for step in range(4):
            vq(normal(100, 4, seed=step))
        return snapshot(vq)

    before = torch.get_rng_state()
    first = trained(0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert same_bits(first, trained(0))
    assert not torch.equal(first["codebook"], trained(1)["codebook"])


# --- state ------------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("updates", [0, 3])
def test_evaluation_leaves_all_state_alone(kind, updates):
    vq = kind(16, 4, restart_threshold=0.5)
    for step in range(updates):
        vq(normal(64, 4, seed=step))
    before = snapshot(vq.eval())
    for step in range(3):
        vq(5 + normal(64, 4, seed=10 + step))
    assert same_bits(vq.state_dict(), before)


@both
def test_all_state_travels_in_the_state_dict(kind):
    vq = kind(16, 4, restart_threshold=0.5, seed=3)
    for step in range(4):
        vq(normal(64, 4, seed=step))
    other = kind(16, 4, restart_threshold=0.5, seed=3)
    other.load_state_dict(vq.state_dict())
    assert other.updates == 4
    for step in range(4, 8):
        assert same_bits(tuple(vq(normal(64, 4, seed=step))), tuple(other(normal(64, 4, seed=step))))
    assert same_bits(vq.state_dict(), other.state_dict())


@both
def test_training_moves_the_state(kind):
    vq = kind(16, 4)
    vq(normal(64, 4))
    before = snapshot(vq)
    vq(normal(64, 4, seed=1))
    assert not torch.equal(vq.usage, before["usage"])
    assert torch.equal(vq.codebook, before["codebook"]) == (kind is VectorQuantizer)


# --- shapes and dtypes ------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("spatial", [(), (7,), (3, 5), (2, 3, 4)], ids=lambda s: f"{len(s)}-D")
def test_any_number_of_spatial_dimensions(kind, spatial):
    vq = kind(16, 4).train()
    z = normal(6, 4, *spatial)
    z_q, loss, indices = vq(z)
    assert z_q.shape == z.shape
    assert loss.shape == ()
    assert indices.shape == (6, *spatial)
    assert indices.dtype == torch.int64
    vq.eval()
    flat = z.movedim(1, -1).reshape(-1, 4)
    out = vq(z)
    assert torch.equal(out.indices.flatten(), nearest_code(flat, vq.codebook.detach()))
    assert torch.equal(out.z_q, vq.lookup(out.indices))
    torch.testing.assert_close(out.loss, vq(flat).loss)


@both
def test_memory_layout_changes_nothing(kind):
    vq = placed(kind, normal(16, 4, seed=1)).eval()
    z = normal(2, 4, 6, 5)
    assert same_bits(tuple(vq(z)), tuple(vq(z.contiguous(memory_format=torch.channels_last))))
    assert torch.equal(vq(z).indices, vq(z.transpose(2, 3)).indices.transpose(1, 2))


@both
@pytest.mark.parametrize("training", [True, False])
def test_inside_autocast_the_quantizer_stays_in_float32(kind, training):
    codebook = normal(512, 64, seed=1)
    z = normal(512, 64).bfloat16()  # what a convolution inside autocast hands over
    coarse = torch.cdist(z.float(), codebook.bfloat16().float()).argmin(1)
    expected = nearest_code(z.float(), codebook)
    assert not torch.equal(coarse, expected)  # codes rounded to bfloat16 would be told apart differently
    vq = placed(kind, codebook).train(training)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = vq(z.requires_grad_())
    assert out.z_q.dtype == out.loss.dtype == vq.codebook.dtype == vq.usage.dtype == torch.float32
    assert torch.equal(out.indices, expected)
    (out.loss + out.z_q.sum()).backward()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_lookup_takes_any_integers(dtype):
    vq = placed(EMAVectorQuantizer, normal(5, 3))
    indices = torch.tensor([[4, 0], [1, 1]], dtype=dtype)
    assert torch.equal(vq.lookup(indices), vq.codebook[indices.long()].movedim(-1, 1))


# --- errors -----------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("updates", [0, 1])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_raise_and_move_nothing(kind, training, updates, bad):
    vq = kind(8, 4)
    for step in range(updates):
        vq(normal(32, 4, seed=step))
    before = snapshot(vq.train(training))
    z = normal(32, 4, 3)
    z[30, 2, 1] = bad
    with pytest.raises(ValueError, match=r"NaN or infinite.*check the encoder"):
        vq(z)
    assert same_bits(vq.state_dict(), before)


@both
@pytest.mark.parametrize(
    ("z", "message"),
    [
        (torch.zeros(2, 5, 3, 3), r"\(2, 5, 3, 3\): expected \(B, 4, \.\.\.\).*embedding_dim = 4"),
        (torch.zeros(4), r"\(4,\): expected \(B, 4"),
        (torch.zeros(0, 4, 3, 3), r"\(0, 4, 3, 3\): an empty batch"),
        (torch.zeros(2, 4, 0), r"\(2, 4, 0\): an empty batch"),
        (torch.zeros(2, 4, dtype=torch.int64), r"torch\.int64: .*floating"),
    ],
)
def test_input_of_the_wrong_shape_or_kind_raises_and_moves_nothing(kind, z, message):
    vq = kind(8, 4)
    before = snapshot(vq)
    with pytest.raises(ValueError, match=message):
        vq(z)
    assert same_bits(vq.state_dict(), before)


@both
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("num_embeddings", "embedding_dim") for value in (0, -3, 2.0, "8", True)),
        *(("commitment_cost", value) for value in (-0.25, math.nan, math.inf, "0.25")),
        *(("decay", value) for value in (-0.1, 1.0)),
        *(("restart_threshold", value) for value in (-0.1, 1.0)),
        ("init", "zeros"),
    ],
)
def test_bad_arguments_raise_naming_them(kind, name, value):
    with pytest.raises(ValueError, match=f"^{name} = {re.escape(repr(value))} "):
        kind(**{"num_embeddings": 8, "embedding_dim": 4, name: value})


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        (torch.tensor([0.0, 1.0]), "torch.float32"),
        (torch.tensor([True]), "torch.bool"),
        (torch.tensor([0, 8]), "0 to 8.*codes 0 to 7"),
        (torch.tensor([[-1, 3]]), "-1 to 3.*codes 0 to 7"),
    ],
)
def test_lookup_refuses_what_is_no_index(indices, message):
    with pytest.raises(ValueError, match=message):
        EMAVectorQuantizer(8, 4).lookup(indices)


def test_the_uniform_codebook_fills_the_descriptions_range():
    codebook = VectorQuantizer(64, 50, init="uniform").codebook.detach()
    assert 0.99 / 64 < codebook.max() <= 1 / 64 and -1 / 64 <= codebook.min() < -0.99 / 64


def test_the_first_averages_are_short():
    vq = EMAVectorQuantizer(4, 2, init="uniform", restart_threshold=0).train()
    z_e, expected = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0)), torch.ones(4)
    for decay in (1 / 10, 2 / 11, 3 / 12):
        counts = torch.bincount(vq(z_e).indices.flatten(), minlength=4)
        expected = decay * expected + (1 - decay) * counts
        torch.testing.assert_close(vq.usage, expected)


@pytest.mark.parametrize("shares", [(4, 6), (1, 9), (5, 5)])
@pytest.mark.parametrize("k", [3, 10, 25])
def test_shares_draw_together_what_one_draws_alone(monkeypatch, shares, k):
    vq, z = EMAVectorQuantizer(k, 2), torch.randn(10, 2, generator=torch.Generator().manual_seed(0))
    alone, parts = vq._draw(z), z.split(list(shares))
    together = torch.zeros(k, 2)
    for offset, part in zip((0, shares[0]), parts, strict=True):
        monkeypatch.setattr(quantizer, "_place_among_processes", lambda length, offset=offset: (offset, 10))
        together += vq._draw(part)  # each fills in the rows it holds
    assert torch.equal(together, alone)


@both
def test_a_quantizer_made_by_hand_has_the_configurations_defaults(kind):
    by_hand, config = kind(8, 3), VQVAEConfig(num_embeddings=8, embedding_dim=3)
    configured = kind.from_config(config, 3)
    assert torch.equal(by_hand.codebook, configured.codebook)
    for name in ("commitment_cost", "decay", "restart_threshold", "init", "seed"):
        assert getattr(by_hand, name) == getattr(configured, name) == getattr(config, name), name


@both
def test_a_quantizer_shows_its_sizes_and_its_default_price(kind):
    assert "K=8, D=3, commitment_cost=0.25" in repr(kind(8, 3))
