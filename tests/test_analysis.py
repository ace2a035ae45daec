"""What codes do: counted, costed and compared with numbers worked out by hand."""

from __future__ import annotations

import math
import re

import pytest
import torch
from helpers import same_bits

from vqvae_lib import (
    BatchLoader,
    active_codes,
    collect_indices,
    compression_ratio,
    mse,
    normalised_mse,
    psnr,
    rate,
    usage_counts,
)


@pytest.mark.parametrize("training", [True, False])
def test_a_whole_pass_is_collected_in_order_and_moves_nothing(trainer, digits, training):
    part = digits.subset(slice(0, 75))
    trainer.fit(BatchLoader(part, 25), steps=3)
    trainer.model.train(training)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    indices = collect_indices(trainer.model, BatchLoader(part, 32))
    assert indices.shape == (75, 7, 7)
    assert torch.equal(indices, trainer.model.encode(part.floats()))
    assert same_bits(trainer.model.state_dict(), before)
    assert trainer.model.training == training


def test_usage_counts_the_codes_never_used_too():
    counts = usage_counts(torch.tensor([[[0, 2], [2, 2]], [[5, 0], [0, 0]]]), 8)
    assert counts.tolist() == [4, 0, 3, 0, 0, 1, 0, 0]
    assert active_codes(counts) == 3
    assert usage_counts(torch.zeros(0, dtype=torch.long), 3).tolist() == [0, 0, 0]


@pytest.mark.parametrize(("indices", "span"), [([0, 8], "0 to 8"), ([-1, 3], "-1 to 3")])
def test_usage_refuses_indices_outside_the_codebook(indices, span):
    with pytest.raises(ValueError, match=f"{span}: with num_embeddings = 8"):
        usage_counts(torch.tensor(indices), 8)


def test_errors_by_hand():
    x, x_recon = torch.tensor([[0.0, 0.5], [1.0, 1.0]]), torch.tensor([[0.5, 0.5], [0.0, 1.0]])
    assert mse(x, x_recon) == (0.25 + 1) / 4
    assert normalised_mse(0.02, 0.08) == 0.25
    assert psnr(0.01) == pytest.approx(20)
    assert psnr(1.0) == 0
    assert psnr(0.0) == math.inf


def test_mean_image_has_a_normalised_error_of_one(digits):
    x = digits.floats()
    grey = torch.full_like(x, float(x.double().mean()))
    assert normalised_mse(mse(x, grey), digits.variance()) == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize(
    ("counts", "nominal", "entropy"),
    [
        ([5, 5, 5, 5], 98, 98),  # all alike: the nominal rate is what they cost
        ([9, 0, 0, 0], 98, 0),  # one code alone says nothing
        ([2, 1, 1, 0], 98, 73.5),  # 1.5 bits at each of 49 positions
    ],
)
def test_rate_by_hand(counts, nominal, entropy):
    assert rate(torch.tensor(counts), 49) == pytest.approx((nominal, entropy), abs=1e-9)


def test_mnist_at_512_codes_is_compressed_fourteen_times():
    bits = rate(torch.ones(512), 49).nominal
    assert bits == 441
    assert compression_ratio((1, 28, 28), bits) == pytest.approx(6272 / 441)
    assert compression_ratio((1, 2, 2), 0.5) == 64  # less than a bit an image is a rate too


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mse(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4)), "x is (2, 1, 4, 4) and x_recon (2, 4, 4)"),
        (lambda: normalised_mse(0.1, 0.0), "variance = 0.0"),
        (lambda: normalised_mse(0.1, -1.0), "variance = -1.0"),
        (lambda: compression_ratio((1, 28, 28), 0.0), "bits = 0.0"),
    ],
)
def test_what_has_no_answer_is_named(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
