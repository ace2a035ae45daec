"""The quantizer over whatever tensors hypothesis can think of, against float64 brute force.

``VQVAE_EXAMPLES=5000`` looks at more of them, other ones each time.
"""

from __future__ import annotations

import math
import os
from unittest.mock import patch

import pytest
import torch
from helpers import same_bits
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from vqvae_lib import EMAVectorQuantizer, VectorQuantizer, code_sums, kmeans, nearest_code, perplexity, quantizer

EXAMPLES = os.environ.get("VQVAE_EXAMPLES")
examples = settings(max_examples=int(EXAMPLES or 60), derandomize=EXAMPLES is None, deadline=None)
kinds = st.sampled_from([VectorQuantizer, EMAVectorQuantizer])
dtypes = st.sampled_from([torch.float32, torch.float64])
seeds = st.integers(0, 2**31)


def normal(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def whole(shape: tuple[int, ...], seed: int, reach: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Whole numbers: products and sums are exact, so ties are true ties."""
    return torch.randint(-reach, reach + 1, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def squared_distances(z: Tensor, codebook: Tensor) -> Tensor:
    """(N, K) float64, one subtraction for each pair."""
    return (z.double()[:, None] - codebook.double()).square().sum(-1)


def same_values(draw: st.DrawFn, values: Tensor) -> Tensor:
    """The same numbers with other strides: transposed, a part of something larger, every second one, reversed order."""
    way = draw(st.sampled_from(["plain", "transposed", "part", "sparse", "permuted"]))
    if way == "transposed":
        return values.transpose(0, -1).contiguous().transpose(0, -1)
    if way == "part":
        return torch.nn.functional.pad(values, (3, 2), value=math.nan)[..., 3:-2]
    if way == "sparse":
        return torch.stack([values, torch.full_like(values, math.nan)], dim=-1)[..., 0]
    if way == "permuted":
        order = draw(st.permutations(range(values.dim())))
        return values.permute(order).contiguous().permute([order.index(i) for i in range(values.dim())])
    return values


@st.composite
def problems(draw: st.DrawFn, exact: bool) -> tuple[Tensor, Tensor]:
    """Vectors (N, D) and codes (K, D) of one dtype, often with codes that occur twice."""
    n, k, d, seed = draw(st.integers(1, 70)), draw(st.integers(1, 70)), draw(st.integers(1, 9)), draw(seeds)
    dtype = draw(dtypes)
    if exact:
        reach = draw(st.integers(0, 4))
        z, codebook = whole((n, d), seed, reach, dtype), whole((k, d), seed + 1, reach, dtype)
    else:
        z = normal((n, d), seed, dtype) * 10.0 ** draw(st.integers(-14, 14))
        codebook = normal((k, d), seed + 1, dtype) * 10.0 ** draw(st.integers(-14, 14))
        codebook = codebook + draw(st.sampled_from([0.0, 1.0, 1e6]))
    if draw(st.booleans()):
        codebook = codebook[torch.randint(k, (k,), generator=torch.Generator().manual_seed(seed))]
    return same_values(draw, z), same_values(draw, codebook)


# --- nearest code -----------------------------------------------------------------------------------------------------


@examples
@given(problem=problems(exact=True), tile=st.integers(1, 3000), codes=st.integers(1, 70))
def test_where_arithmetic_is_exact_the_answer_is_brute_forces_ties_included(problem, tile, codes):
    z, codebook = problem
    with patch.dict(quantizer.TILE, cpu=tile), patch.object(quantizer, "TILE_CODES", codes):
        indices = nearest_code(z, codebook)
    # the first of equal ones: argmin promises no order, a comparison with the minimum does
    table = squared_distances(z, codebook)
    first = (table == table.min(1, keepdim=True).values).int().argmax(1)
    assert indices.tolist() == first.tolist()


@examples
@given(problem=problems(exact=False))
def test_elsewhere_the_code_is_as_near_as_rounding_allows(problem):
    z, codebook = problem
    table = squared_distances(z, codebook)
    excess = table.gather(1, nearest_code(z, codebook)[:, None])[:, 0] - table.min(1).values
    # score = z.e - |e|^2 / 2, a sum of D + 1 products: each rounds by at most eps of the sizes that are added
    eps, d = torch.finfo(z.dtype).eps, z.shape[1]
    longest = float(codebook.double().norm(dim=1).max())
    sizes = z.double().norm(dim=1) * longest + longest**2
    theirs = 4 * (d + 2) * torch.finfo(torch.float64).eps * table.min(1).values  # brute force rounds too
    assert (excess <= 4 * (d + 2) * eps * sizes + theirs + 4 * d * torch.finfo(z.dtype).tiny).all()


@examples
@given(problem=problems(exact=True), order=seeds)
def test_each_vector_is_looked_up_for_itself(problem, order):
    z, codebook = problem
    shuffled = torch.randperm(len(z), generator=torch.Generator().manual_seed(order))
    assert torch.equal(nearest_code(z[shuffled], codebook), nearest_code(z, codebook)[shuffled])
    assert torch.equal(nearest_code(z[:1], codebook), nearest_code(z, codebook)[:1])


EXTREMES = [0.0, -0.0, 1e-45, -1e-38, 1.0, 1e18, 1.9e19, -1.7e19, 3e19, 1e30, -3e38]


@examples
@given(data=st.data(), d=st.integers(1, 4), n=st.integers(1, 6), k=st.integers(1, 20), infinite=st.booleans())
def test_at_the_edge_of_float32_the_answer_is_right_or_an_error(data, d, n, k, infinite):
    values = st.sampled_from(EXTREMES + ([math.nan, math.inf, -math.inf] if infinite else []))
    z = torch.tensor(data.draw(st.lists(values, min_size=n * d, max_size=n * d))).view(n, d)
    codebook = torch.tensor(data.draw(st.lists(values, min_size=k * d, max_size=k * d))).view(k, d)
    sound = bool(z.isfinite().all() and codebook.square().sum(1).isfinite().all())
    try:
        indices = nearest_code(z, codebook)
    except ValueError as error:
        assert "NaN or infinite" in str(error)
        assert not sound or (z.double().abs() @ codebook.double().abs().T).max() > 1e38
        return
    assert sound
    table = squared_distances(z, codebook)
    excess = table.gather(1, indices[:, None])[:, 0] - table.min(1).values
    longest = float(codebook.double().norm(dim=1).max())
    assert (excess <= 1e-5 * (z.double().norm(dim=1) * longest + longest**2) + 1e-37).all()


@pytest.mark.parametrize("code", [1.9e19, -1.9e19, math.inf, -math.inf, math.nan])
def test_one_code_too_large_to_be_squared_is_an_error_wherever_the_vectors_are(code):
    for vector in (0.0, 1.0, 1.7e19, -1.7e19):  # the fourth is nearest to the second code by far
        with pytest.raises(ValueError, match="NaN or infinite"):
            nearest_code(torch.tensor([[vector]]), torch.tensor([[0.0], [code]]))


# --- the whole quantizer ----------------------------------------------------------------------------------------------


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """The same z_e (B, D, *spatial) twice: as it comes, and with other strides."""
    shape = (draw(st.integers(1, 5)), draw(st.integers(1, 6)), *draw(st.lists(st.integers(1, 5), max_size=3)))
    dtype = draw(st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]))
    z = normal(shape, draw(seeds)).to(dtype)
    other = same_values(draw, z)
    if z.dim() == 4 and draw(st.booleans()):
        other = z.contiguous(memory_format=torch.channels_last)
    return z, other


@examples
@given(pair=batches(), kind=kinds, k=st.integers(1, 20), training=st.booleans())
def test_strides_and_dtypes_change_nothing_but_their_own_rounding(pair, kind, k, training):
    z, other = pair
    one, two = (kind(k, z.shape[1], restart_threshold=0.5).train(training) for _ in range(2))
    first, second = one(z), two(other)
    assert same_bits(first.indices, second.indices)
    assert same_bits(first.z_q, second.z_q)
    torch.testing.assert_close(first.loss, second.loss)
    torch.testing.assert_close(one.codebook, two.codebook)
    assert first.z_q.dtype == one.codebook.dtype == torch.float32
    assert first.z_q.shape == z.shape
    assert first.indices.shape == z.shape[:1] + z.shape[2:]
    if not training:
        assert torch.equal(first.z_q, one.lookup(first.indices))
        flat = z.float().movedim(1, -1).reshape(-1, z.shape[1])
        assert torch.equal(first.indices.flatten(), nearest_code(flat, one.codebook.detach()))


@examples
@given(
    kind=kinds,
    n=st.integers(1, 30),
    k=st.integers(1, 40),
    d=st.integers(1, 4),
    exponent=st.integers(-30, 18),
    distinct=st.integers(1, 4),
    threshold=st.sampled_from([0.0, 0.04, 0.9]),
    seed=seeds,
)
def test_few_vectors_equal_vectors_and_any_scale_leave_a_sound_codebook(
    kind, n, k, d, exponent, distinct, threshold, seed
):
    """N < K, one code, one vector, batches of one vector over and over: codes stay among the vectors."""
    vq = kind(k, d, restart_threshold=threshold, seed=seed % 1000)
    seen = []
    for step in range(4):
        z = normal((n, d), seed + step) * 10.0**exponent
        z = z[torch.randint(min(distinct, n), (n,), generator=torch.Generator().manual_seed(step))]
        seen.append(z)
        out = vq(z)
        assert 0 <= int(out.indices.min()) <= int(out.indices.max()) < k
        assert out.z_q.isfinite().all()
        assert vq.usage.isfinite().all()
        assert vq.usage.min() >= 0
        # an average of vectors lies between them
        low, high = torch.cat(seen).min(0).values, torch.cat(seen).max(0).values
        slack = 1e-5 * torch.maximum(low.abs(), high.abs())
        assert ((vq.codebook >= low - slack) & (vq.codebook <= high + slack)).all()


@examples
@given(
    kind=kinds,
    bad=st.sampled_from([math.nan, math.inf, -math.inf]),
    place=st.integers(0, 59),
    started=st.integers(0, 2),
    training=st.booleans(),
    k=st.integers(1, 9),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
)
def test_a_value_that_is_not_finite_is_an_error_wherever_it_stands(kind, bad, place, started, training, k, dtype):
    vq = kind(k, 3, restart_threshold=0.5)
    for step in range(started):
        vq(normal((4, 3, 5), step))
    vq.train(training)
    before = {name: value.clone() for name, value in vq.state_dict().items()}
    z = normal((4, 3, 5), 9).to(dtype)
    z.view(-1)[place] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        vq(z)
    assert same_bits(dict(vq.state_dict()), before)


@examples
@given(kind=kinds, exponent=st.integers(15, 38), started=st.integers(0, 2), seed=seeds)
def test_vectors_too_large_to_be_squared_move_nothing_or_leave_numbers(kind, exponent, started, seed):
    vq = kind(6, 3, restart_threshold=0.5)
    for step in range(started):
        vq(normal((20, 3), step))
    before = {name: value.clone() for name, value in vq.state_dict().items()}
    z = (normal((20, 3), seed).double() * 10.0**exponent).float()
    assume(bool(z.isfinite().all()))
    try:
        out = vq(z)
    except ValueError as error:
        assert "NaN or infinite" in str(error)
        assert same_bits(dict(vq.state_dict()), before)
    else:
        assert out.z_q.isfinite().all()
        assert all(value.isfinite().all() for value in vq.state_dict().values())


# --- counts, k-means, perplexity --------------------------------------------------------------------------------------


@examples
@given(n=st.integers(1, 50), k=st.integers(1, 20), d=st.integers(1, 5), seed=seeds)
def test_counts_and_sums_are_those_of_the_loop(n, k, d, seed):
    z = whole((n, d), seed, 9)
    indices = torch.randint(k, (n,), generator=torch.Generator().manual_seed(seed))
    counts, sums = code_sums(z, indices, k)
    for code in range(k):
        assert counts[code] == int((indices == code).sum())
        assert torch.equal(sums[code], z[indices == code].sum(0))


@examples
@given(problem=problems(exact=True), iterations=st.integers(1, 5))
def test_k_means_never_gets_worse_and_counts_every_vector(problem, iterations):
    z, centres = (part.double() for part in problem)
    before = float(squared_distances(z, centres).min(1).values.sum())
    moved, counts = kmeans(z, centres, iterations)
    after = float(squared_distances(z, moved).min(1).values.sum())
    assert after <= before * (1 + 1e-12) + 1e-12
    assert counts.sum() == len(z)
    assert moved.isfinite().all()


@examples
@given(counts=st.lists(st.integers(0, 10**6), min_size=1, max_size=40).filter(any))
def test_perplexity_lies_between_one_and_the_codes_in_use(counts):
    value = float(perplexity(torch.tensor(counts)))
    used = [count for count in counts if count]
    assert 1 - 1e-12 <= value <= len(used) * (1 + 1e-12)
    entropy = -math.fsum(count / sum(used) * math.log(count / sum(used)) for count in used)
    assert value == pytest.approx(math.exp(entropy), rel=1e-9)
