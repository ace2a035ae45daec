"""Nearest codes against brute force, counts and sums against one-hot matrices, k-means against scikit-learn."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from helpers import HALVES, brute_force, normal, whole
from sklearn.cluster import KMeans

from vqvae_lib import code_sums, kmeans, lookup, nearest_code

SIZES = [(1, 1, 1), (1, 7, 3), (9, 1, 4), (64, 512, 64), (1000, 33, 1), (129, 1000, 16), (5000, 64, 8), (70, 40, 2)]


@pytest.mark.parametrize(("n", "k", "d"), SIZES)
def test_nearest_code_is_brute_forces_and_ties_go_to_the_first(n, k, d):
    z, codebook = whole(n, d, reach=3), whole(k, d, seed=1, reach=3)
    assert torch.equal(nearest_code(z, codebook), brute_force(z, codebook))


def test_the_position_of_a_maximum_is_the_first_one_s_as_with_max():
    scores = whole(300, 70, reach=4)
    scores[0], scores[1, 3:] = -math.inf, -math.inf
    for part in (scores, scores[:, :1], scores.double(), -scores.abs() * 3e38, scores[:0]):
        expected = part.max(1)
        value, position = lookup.max_of_rows(part.clone())
        assert torch.equal(value, expected.values) and torch.equal(position, expected.indices)


def test_the_scores_held_at_a_time_do_not_grow_with_vectors_or_codes(monkeypatch):
    product, held = torch.addmm, []
    monkeypatch.setattr(torch, "addmm", lambda *a, **k: held.append((made := product(*a, **k)).numel()) or made)
    for n, k in [(100, 64), (50_000, 64), (300, 10_000)]:
        held.clear()
        nearest_code(normal(n, 2), normal(k, 2, seed=1))
        assert sum(held) == n * k  # each pair once
        assert max(held) <= math.prod(lookup.TILE)


def test_codes_that_can_not_be_compared_are_an_error_and_no_vectors_are_none():
    with pytest.raises(ValueError, match="no codes"):
        nearest_code(normal(5, 3), normal(0, 3))
    assert nearest_code(normal(0, 3), normal(4, 3)).shape == (0,)
    for code in (1.9e19, -math.inf, math.nan):  # which would score -inf, and never win
        with pytest.raises(ValueError, match="too large"):
            nearest_code(torch.tensor([[0.0], [-1.7e19]]), torch.tensor([[0.0], [code]]))


@pytest.mark.parametrize("dtype", HALVES)
def test_near_codes_are_told_apart_in_half_precision_too(dtype):
    z, codebook = normal(500, 64).to(dtype), normal(512, 64, seed=1).to(dtype)
    exact = nearest_code(z.float(), codebook.float())
    assert torch.equal(nearest_code(z, codebook), exact)
    assert torch.equal(nearest_code(z, codebook.double()), exact)  # the wider of two dtypes is taken
    assert not torch.equal((z @ codebook.T - codebook.square().sum(1) / 2).argmax(1), exact)


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_counts_and_averages_as_float32_does(dtype):
    z, codes = torch.ones(5000, 2, dtype=dtype), torch.zeros(5000, dtype=torch.long)
    counts, sums = code_sums(z, codes, 3)
    assert counts.tolist() == [5000, 0, 0]
    assert sums.tolist() == [[5000, 5000], [0, 0], [0, 0]]
    z = whole(3000, 2, reach=3).to(dtype)
    theirs, ours = kmeans(z.float(), z[:9].float()), kmeans(z, z[:9])
    assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])


def test_tensors_that_require_grad_are_welcome_and_get_none():
    z, codebook = normal(50, 3).requires_grad_(), torch.nn.Parameter(normal(4, 3, seed=1))
    indices = nearest_code(z, codebook)
    assert torch.equal(indices, nearest_code(z.detach(), codebook.detach()))
    for made in (*code_sums(z, indices, 4), *kmeans(z, codebook), *kmeans(2 * z, 2 * codebook)):
        assert not made.requires_grad


def test_code_sums_are_those_of_one_hot_matrices():
    z, indices = whole(500, 6), torch.randint(9, (500,), generator=torch.Generator().manual_seed(2))
    one_hot = F.one_hot(indices, 11).double()
    counts, sums = code_sums(z, indices, 11)
    assert torch.equal(counts.double(), one_hot.sum(0))
    assert torch.equal(sums.double(), one_hot.T @ z.double())


def test_kmeans_is_scikit_learns_and_a_center_without_vectors_stays():
    z = normal(600, 3, dtype=torch.float64)
    theirs = KMeans(12, init=z[:12].numpy(), n_init=1, max_iter=8, tol=0, algorithm="lloyd").fit(z.numpy())
    centers, counts = kmeans(z, z[:12].clone(), iterations=theirs.n_iter_)
    torch.testing.assert_close(centers, torch.from_numpy(theirs.cluster_centers_), rtol=1e-9, atol=1e-9)
    assert counts.sum() == len(z)
    far = torch.tensor([[0.0, 0.0], [1e3, 1e3]])
    centers, counts = kmeans(normal(50, 2), far)
    assert counts.tolist() == [50, 0]
    assert torch.equal(centers[1], far[1])
    torch.testing.assert_close(centers[0], normal(50, 2).mean(0))


@pytest.mark.parametrize(("name", "value"), [("TILE", (2, 4)), ("is_exporting", lambda: True)])
def test_ties_across_tiles_and_in_an_export_go_to_the_lowest_index(monkeypatch, name, value):
    monkeypatch.setattr(f"vqvae_lib.lookup.{name}", value)
    codes = torch.tensor([[1.0, 0.0], [1.9, 0.0], [0.0, 1.0]])
    assert torch.equal(nearest_code(codes, codes.repeat(2, 1)), torch.arange(3))
