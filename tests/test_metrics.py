"""What codes do: counted, costed and compared with numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import INTEGERS, NoFloat64, same_bits, snapshot

from vqvae_book.extras import compression_ratio
from vqvae_lib import BatchLoader, active_codes, code_frequency, collect_indices, usage_counts
from vqvae_lib.metrics import mse, normalized_mse, perplexity, rate


@pytest.mark.parametrize("training", [True, False])
def test_a_whole_pass_is_collected_in_order_and_moves_nothing(trainer, digits, training):
    part = digits.subset(slice(0, 75))
    trainer.fit(BatchLoader(part, 25), steps=3)
    model = trainer.model.train(training)
    before = snapshot(model)
    indices = collect_indices(model, BatchLoader(part, 32))
    assert indices.shape == (75, 7, 7)
    assert torch.equal(indices, model.encode(part.floats()))
    assert torch.equal(indices, collect_indices(model, part.floats().split(40)))  # batches without labels
    assert same_bits(model.state_dict(), before)
    assert model.training == training


@pytest.mark.parametrize("dtype", INTEGERS)
def test_usage_counts_the_codes_never_used_too(dtype):
    indices = torch.tensor([[[0, 2], [2, 2]], [[5, 0], [0, 0]]]).to(dtype)
    counts = usage_counts(indices, 8)
    assert counts.tolist() == [4, 0, 3, 0, 0, 1, 0, 0]
    assert active_codes(counts) == 3
    assert torch.equal(code_frequency(indices, 8), counts / 8)
    assert torch.equal(usage_counts(indices.numpy(), 8), counts)
    assert usage_counts(indices[:0], 3).tolist() == [0, 0, 0]


def test_shares_are_exact_where_float32_can_no_longer_count():
    assert code_frequency(torch.zeros(2**24 + 8, dtype=torch.int32), 2).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [([7, 0, 0, 0], 1), ([3, 3, 3, 3], 4), ([5, 5, 0, 0], 2), ([2, 1, 1], 2**1.5), ([1], 1), ([1] * 512, 512)],
)
@pytest.mark.parametrize("scale", [1, 1e-3, 1e9])
def test_perplexity_at_its_limits_and_between(counts, expected, scale):
    with NoFloat64():
        value = perplexity((torch.tensor(counts) * scale).requires_grad_(scale < 1))
    assert value.dtype == torch.float64 and value.device.type == "cpu"
    assert float(value) == pytest.approx(expected, rel=1e-6)


def test_errors_by_hand(digits):
    x, x_recon = torch.tensor([[0.0, 0.5], [1.0, 1.0]]), torch.tensor([[0.5, 0.5], [0.0, 1.0]], requires_grad=True)
    with NoFloat64():
        assert mse(x, x_recon) == (0.25 + 1) / 4
    assert normalized_mse(0.02, 0.08) == normalized_mse(np.float32(0.02), np.float32(0.08)) == 0.25
    x = digits.floats()
    gray = torch.full_like(x, float(x.double().mean()))
    assert normalized_mse(mse(x, gray), digits.variance()) == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize(
    ("counts", "nominal", "entropy"),
    [
        ([5, 5, 5, 5], 98, 98),  # all alike: the nominal rate is what they cost
        ([9, 0, 0, 0], 98, 0),  # one code alone says nothing
        ([2, 1, 1, 0], 98, 73.5),  # 1.5 bits at each of 49 positions
        ([1] * 512, 441, 441),
    ],
)
def test_rate_by_hand(counts, nominal, entropy):
    assert rate(torch.tensor(counts), 49) == pytest.approx((nominal, entropy), abs=1e-9)
    assert compression_ratio((1, 28, 28), nominal) == pytest.approx(6272 / nominal)
    assert compression_ratio((1, 2, 2), 0.5) == 64  # less than a bit per image is a rate too


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: mse(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4)), "x_recon"),
        (lambda: normalized_mse(0.1, 0.0), "variance = 0.0"),
        (lambda: normalized_mse(0.1, -1.0), "variance = -1.0"),
        (lambda: compression_ratio((1, 28, 28), 0.0), "bits = 0.0"),
        (lambda: collect_indices(torch.nn.Linear(1, 1), []), "loader"),
        (lambda: usage_counts(torch.tensor([0, 8]), 8), "num_embeddings = 8"),
        (lambda: usage_counts(torch.tensor([-1, 3]), 8), "num_embeddings = 8"),
        (lambda: usage_counts(torch.zeros(3), 8), "float32"),
        (lambda: code_frequency(torch.zeros(3, dtype=torch.bool), 8), "bool"),
    ],
)
def test_what_has_no_answer_is_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()
