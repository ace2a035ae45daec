"""The quantizer over whatever tensors hypothesis can think of, against float64 brute force.

``VQVAE_EXAMPLES=5000`` looks at more of them, other ones each time.
"""

from __future__ import annotations

import math
import os
from unittest.mock import patch

import pytest
import torch
from helpers import HALVES, brute_force, normal, same_bits, snapshot, squared_distances, trained, whole
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vqvae_lib import EMAVectorQuantizer, VectorQuantizer, lookup, nearest_code

EXAMPLES = os.environ.get("VQVAE_EXAMPLES")
examples = settings(max_examples=int(EXAMPLES or 40), derandomize=EXAMPLES is None, deadline=None)
kinds = st.sampled_from([VectorQuantizer, EMAVectorQuantizer])
dtypes = st.sampled_from([*HALVES, torch.float32, torch.float64])
seeds = st.integers(0, 2**31)


def same_values(draw: st.DrawFn, values: Tensor) -> Tensor:
    """The same numbers with other strides: transposed, a part of something larger, every second one, channels last."""
    way = draw(st.sampled_from(["plain", "transposed", "part", "sparse", "channels last"]))
    if way == "transposed":
        return values.transpose(0, -1).contiguous().transpose(0, -1)
    if way == "part":
        return torch.nn.functional.pad(values, (3, 2), value=math.nan)[..., 3:-2]
    if way == "sparse":
        return torch.stack([values, torch.full_like(values, math.nan)], dim=-1)[..., 0]
    return values.movedim(1, -1).contiguous().movedim(-1, 1) if way == "channels last" else values


@st.composite
def problems(draw: st.DrawFn, exact: bool) -> tuple[Tensor, Tensor]:
    """Vectors (N, D) and codes (K, D) of one dtype, often with codes that occur twice."""
    n, k, d, seed = draw(st.integers(1, 70)), draw(st.integers(1, 70)), draw(st.integers(1, 9)), draw(seeds)
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    if exact:
        z, codebook = (whole(rows, d, seed=seed + rows, reach=draw(st.integers(0, 4)), dtype=dtype) for rows in (n, k))
    else:
        scales = [10.0 ** draw(st.integers(-14, 14)) for _ in range(2)]
        z, codebook = normal(n, d, seed=seed, dtype=dtype) * scales[0], normal(k, d, seed=seed + 1, dtype=dtype)
        codebook = codebook * scales[1] + draw(st.sampled_from([0.0, 1.0, 1e6]))
    if draw(st.booleans()):
        codebook = codebook[torch.randint(k, (k,), generator=torch.Generator().manual_seed(seed))]
    return same_values(draw, z), same_values(draw, codebook)


@examples
@given(problem=problems(exact=True), tile=st.tuples(st.integers(1, 60), st.integers(1, 60)))
def test_where_arithmetic_is_exact_the_answer_is_brute_forces_ties_included(problem, tile):
    with patch.object(lookup, "TILE", tile):
        assert torch.equal(nearest_code(*problem), brute_force(*problem))


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


EXTREMES = [0.0, -0.0, 1e-45, -1e-38, 1.0, 1e18, 1.9e19, -1.7e19, 3e19, 1e30, -3e38, math.nan, math.inf, -math.inf]


@examples
@given(data=st.data(), d=st.integers(1, 4), n=st.integers(1, 6), k=st.integers(1, 20), last=st.sampled_from([11, 14]))
def test_at_the_edge_of_float32_the_answer_is_right_or_an_error(data, d, n, k, last):
    values = st.lists(st.sampled_from(EXTREMES[:last]), min_size=(n + k) * d, max_size=(n + k) * d)
    z, codebook = torch.tensor(data.draw(values)).view(n + k, d).split([n, k])
    sound = bool(z.isfinite().all() and codebook.square().sum(1).isfinite().all())
    try:
        indices = nearest_code(z, codebook)
    except ValueError:
        assert not sound or (z.double().abs() @ codebook.double().abs().T).max() > 1e38
        return
    assert sound
    table = squared_distances(z, codebook)
    excess = table.gather(1, indices[:, None])[:, 0] - table.min(1).values
    longest = float(codebook.double().norm(dim=1).max())
    assert (excess <= 1e-5 * (z.double().norm(dim=1) * longest + longest**2) + 1e-37).all()


@examples
@given(data=st.data(), kind=kinds, dtype=dtypes, k=st.integers(1, 20), training=st.booleans(), seed=seeds)
def test_shapes_strides_and_dtypes_change_nothing_but_their_own_rounding(data, kind, dtype, k, training, seed):
    shape = data.draw(st.lists(st.integers(1, 5), min_size=2, max_size=5))  # B, D and up to three spatial dimensions
    z = normal(*shape, seed=seed).to(dtype)
    one, two = (kind(k, z.shape[1], init="uniform", restart_threshold=0).train(training) for _ in range(2))
    flat = z.float().movedim(1, -1).reshape(-1, z.shape[1])
    expected = nearest_code(flat, one.codebook).view(shape[:1] + shape[2:])
    codes = one.lookup(expected).detach()
    first, second = one(z), two(same_values(data.draw, z))
    assert torch.equal(first.indices, expected) and torch.equal(second.indices, expected)
    assert torch.equal(first.z_q, codes) and torch.equal(second.z_q, codes)
    assert first.z_q.dtype == one.codebook.dtype == torch.float32
    torch.testing.assert_close(first.loss, second.loss)
    torch.testing.assert_close(one.codebook, two.codebook)


@examples
@given(kinds, st.integers(1, 30), st.integers(1, 40), st.integers(1, 4), st.integers(-30, 18), st.data())
def test_few_vectors_equal_vectors_and_any_scale_leave_a_sound_codebook(kind, n, k, d, exponent, data):
    """N < K, one code, one vector, batches of one vector over and over: codes stay among the vectors."""
    vq, seen = kind(k, d, restart_threshold=data.draw(st.sampled_from([0.0, 0.04, 0.9]))), []
    distinct, seed = data.draw(st.integers(1, 4)), data.draw(seeds)
    for step in range(4):
        z = normal(n, d, seed=seed + step) * 10.0**exponent
        z = z[torch.randint(min(distinct, n), (n,), generator=torch.Generator().manual_seed(step))]
        seen.append(z)
        if step == 0:
            vq.initialize(z)
        out = vq(z)
        assert 0 <= int(out.indices.min()) <= int(out.indices.max()) < k
        assert out.z_q.isfinite().all()
        assert vq.usage.isfinite().all() and vq.usage.min() >= 0
        low, high = torch.cat(seen).min(0).values, torch.cat(seen).max(0).values  # an average lies between them
        slack = 1e-5 * torch.maximum(low.abs(), high.abs())
        assert ((vq.codebook >= low - slack) & (vq.codebook <= high + slack)).all()


@examples
@given(
    kinds, st.sampled_from([math.nan, math.inf, -math.inf]), st.integers(0, 59), st.booleans(), st.booleans(), dtypes
)
def test_a_value_that_is_not_finite_is_an_error_and_moves_nothing(kind, bad, place, started, training, dtype):
    vq = (trained(kind, 2) if started else kind(16, 4)).train(training)
    before = snapshot(vq)
    z = normal(3, 4, 5).to(dtype)
    z.view(-1)[place] = bad
    for call in [vq, vq.assign] + ([] if started else [vq.initialize]):
        with pytest.raises(ValueError, match="NaN"):
            call(z)
    assert same_bits(dict(vq.state_dict()), before)
