"""What every prior promises, whatever network it has: exact probabilities, samples that follow them, clear errors."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from helpers import NoFloat64, expect_stripes_are_learned, same_bits, snapshot, stripes
from small_priors import KINDS, codes_for, prior
from torch import Tensor

from vqvae_lib import BatchLoader, CheckpointError, PixelCNN, Trainer, TransformerPrior
from vqvae_lib import sampling_distribution as distribution

kinds = pytest.mark.parametrize("kind", KINDS)
of_one_code = pytest.mark.parametrize("kind", list(KINDS)[:3])
two_kinds = pytest.mark.parametrize("kind", ["gated", "transformer"])


def every_grid(model: PixelCNN | TransformerPrior, height: int, width: int) -> Tensor:
    """Every grid of two codes that there is."""
    shape = height, width, *model.stacked
    return torch.tensor(list(itertools.product(range(2), repeat=math.prod(shape)))).view(-1, *shape)


# --- mathematics ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "height", "width", "changes"),
    [(kind, *shape, {}) for kind in KINDS for shape in [(2, 3), (1, 3), (1, 1)]]
    + [("transformer", 1, 1, {"depth": 6})],
)
@torch.no_grad()
def test_probabilities_of_all_grids_add_up_to_one(kind, height, width, changes):
    model = prior(kind, num_embeddings=2, **changes)
    p = model.nats(every_grid(model, height, width)).double().flatten(1).sum(1).neg().exp()
    assert p.std() > 0
    assert float(p.sum()) == pytest.approx(1, abs=1e-6)


@kinds
@pytest.mark.parametrize("K", [2, 16, 100])
def test_uniform_logits_cost_log2_k_bits_and_nats_are_of_the_code_that_came(kind, K):
    model = prior(kind, num_embeddings=K)
    codes = codes_for(model)
    expected = -model(codes).double().log_softmax(1).gather(1, codes[:, None])[:, 0]
    torch.testing.assert_close(model.nats(codes).double(), expected, rtol=0, atol=1e-6)
    for weights in model.heads if hasattr(model, "heads") else [model.head[-1]]:
        torch.nn.init.zeros_(weights.weight)
        torch.nn.init.zeros_(weights.bias)
    numbers = model.summarize(torch.no_grad()(model.training_step)(codes, torch.zeros(2)))
    expected = {"total_loss": math.log(K), "bits_per_code": math.log2(K)}
    assert numbers == pytest.approx(expected | {"bits_per_image": codes[0].numel() * math.log2(K)}, rel=1e-6)


@of_one_code
@torch.no_grad()
def test_labels_change_the_prediction_and_each_label_differently(kind):
    model = prior(kind, num_classes=4)
    codes = codes_for(model, 1).expand(4, -1, -1)
    nats = model.nats(codes, torch.arange(4)).sum((1, 2))
    assert len(set(nats.tolist())) == 4
    assert float(model.nats(codes[:1], torch.tensor([2])).sum()) == pytest.approx(float(nats[2]), rel=1e-5)


# --- sampling ---------------------------------------------------------------------------------------------------------


@of_one_code
@pytest.mark.parametrize("given", ["none", "first row"])
def test_samples_are_as_frequent_as_they_are_probable(kind, given):
    model, n = prior(kind, 20, num_embeddings=2), 20_000
    every = every_grid(model, 2, 2)
    with torch.no_grad():
        if kind != "transformer":
            for p in model.head.parameters():
                p.mul_(6)  # away from the uniform
        probability = model.nats(every).sum((1, 2)).double().neg().exp()
    mask = torch.tensor([[given != "none"] * 2, [False] * 2])
    start = torch.tensor([[1, 0], [0, 0]]).expand(n, 2, 2)
    possible = ((every == start[0]) | ~mask).all((1, 2))
    expected = torch.where(possible, probability, 0.0)
    expected = n * expected / expected.sum()
    drawn = model.complete(start, mask, seed=3)
    counts = torch.bincount((drawn.flatten(1) * torch.tensor([8, 4, 2, 1])).sum(1), minlength=16)
    assert counts[~possible].sum() == 0 and expected.max() > 1.5 * expected[possible].min()
    chi2 = float(((counts - expected) ** 2 / expected)[possible].sum())
    assert chi2 < {16: 37.7, 4: 16.3}[int(possible.sum())]  # exceeded once in a thousand seeds


@kinds
@torch.no_grad()
def test_sampling_step_by_step_draws_what_whole_passes_would(kind):
    model, labels = prior(kind, num_embeddings=5, num_classes=3), torch.tensor([0, 2, 1])
    drawn = model.sample(3, 4, 5, labels, temperature=0.7, top_p=0.9, seed=1)
    grid, generator = torch.zeros(3, 4, 5, *model.stacked, dtype=torch.long), torch.Generator().manual_seed(1)
    flat = grid.view(3, -1)
    for t in range(flat.shape[1]):
        p = distribution(model(grid, labels).flatten(2)[:, :, t], 0.7, 0.9)
        flat[:, t] = torch.multinomial(p, 1, generator=generator)[:, 0]
    assert drawn.shape == grid.shape and torch.equal(drawn, grid)


@kinds
@pytest.mark.parametrize("training", [True, False])
def test_same_seed_same_samples_and_nothing_else_moves_or_is_seeded(kind, training, monkeypatch):
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("seeds all devices"))
    before = torch.get_rng_state()
    model = prior(kind, dropout=0.5).train(training)
    state = snapshot(model)
    one, same, other = (model.sample(8, 4, 4, seed=seed) for seed in (0, np.int64(0), 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert same_bits(model.state_dict(), state) and torch.equal(torch.get_rng_state(), before)
    assert model.training == training


@kinds
def test_completion_keeps_what_is_given_and_draws_the_rest(kind):
    model = prior(kind, num_embeddings=8)
    codes = codes_for(model, 6)
    given = torch.rand(codes.shape) < 0.5
    start = torch.where(given, codes, -1)  # what is not given may be anything
    drawn = model.complete(start, given, seed=2)
    assert torch.equal(drawn[given], codes[given]) and not torch.equal(drawn, codes)
    assert 0 <= drawn.min() <= drawn.max() < 8 and (start[~given] == -1).all()
    assert torch.equal(model.complete(codes, torch.ones(codes.shape[1:], dtype=torch.bool)), codes)


# --- training and devices ---------------------------------------------------------------------------------------------


@two_kinds
@pytest.mark.parametrize("num_classes", [0, 3])
def test_the_trainer_teaches_it_what_there_is_to_know_and_labels_save_their_bits(kind, num_classes):
    more, steps = {"gated": ({"layers": 2, "lr": 3e-2}, 100), "transformer": ({"hidden_dim": 16, "lr": 2e-2}, 70)}[kind]
    model = prior(kind, 1, num_classes=num_classes, precision="float32", **more)
    expect_stripes_are_learned(model, steps=steps)


@kinds
def test_every_weight_learns_and_lies_as_optimizers_and_files_want_it(kind):
    model = prior(kind, num_classes=2)
    model.training_step(codes_for(model, 8, 4, 5), torch.arange(8) % 2)["total_loss"].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert all(value.is_contiguous() for value in model.state_dict().values())


@two_kinds
def test_weights_are_a_function_of_the_seed_and_a_saved_run_with_dropout_goes_on(kind, tmp_path):
    def fresh(**changes: object) -> Trainer:
        model = prior(kind, 1, dropout=0.2, **changes)
        return Trainer(model, model.config)

    one, other = fresh(), fresh()
    for trainer in (one, other):
        trainer.fit(BatchLoader(stripes(), 32, shuffle=True, drop_last=True), steps=6)
    assert same_bits(one.model.state_dict(), other.model.state_dict())
    again = fresh(seed=3)
    assert not torch.equal(again.model.embed.weight, fresh().model.embed.weight)
    again.load(one.save(tmp_path / "prior.pt"))
    assert same_bits(again.model.state_dict(), one.model.state_dict())
    with pytest.raises(CheckpointError):
        fresh(hidden_dim=16).load(tmp_path / "prior.pt")


@kinds
def test_devices_without_float64_or_with_values_that_are_slow_to_read_serve_too(kind):
    model, labels = prior(kind, num_classes=2), torch.tensor([0, 1])
    codes = codes_for(model)
    with NoFloat64():
        model.training_step(codes, labels)
        model.sample(2, 2, 2, labels, top_p=0.5)
    meta = model.to("meta").training_step(codes.to("meta"), labels.to("meta"))  # there are no values to read
    assert meta["total_loss"].is_meta


@two_kinds
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_prior_of_another_precision_trains_and_draws(kind, dtype):
    model, labels = prior(kind, 1, num_classes=2).to(dtype), torch.tensor([0, 1])
    assert model.training_step(codes_for(model), labels)["total_loss"].isfinite()
    assert model.sample(2, 3, 3, labels).dtype == torch.int64
    with torch.autocast("cpu", torch.bfloat16):
        assert prior(kind, 1)(codes_for(model)).dtype == torch.float32


# --- bad input --------------------------------------------------------------------------------------------------------


NO_CODES = torch.zeros(2, 4, 4), torch.zeros(4, 4).long(), torch.zeros(0, 4, 4).long()


@kinds
@pytest.mark.parametrize("codes", [*NO_CODES, torch.full((1, 4, 4), 3), torch.full((1, 4, 4), -1)])
@pytest.mark.parametrize("call", ["forward", "nats", "training_step", "complete"])
def test_codes_that_are_none_raise(kind, codes, call):
    model = prior(kind)
    codes = torch.stack([codes] * 2, -1) if model.stacked else codes
    with pytest.raises(ValueError, match="codes"):
        getattr(model, call)(codes, *[torch.ones_like(codes, dtype=torch.bool)] * (call == "complete"))


@two_kinds
@pytest.mark.parametrize("call", ["forward", "nats", "sample"])
@pytest.mark.parametrize(
    ("classes", "condition"),
    [
        *((4, torch.tensor(labels)) for labels in ([1, 4], [-1, 0], [1, 2, 3], [1.0, 2.0], [[1], [2]])),
        (4, None),
        (0, torch.tensor([1, 2])),
    ],
)
def test_a_condition_missing_or_wrong_raises(kind, call, classes, condition):
    arguments = (2, 3, 3) if call == "sample" else (torch.zeros(2, 3, 3, dtype=torch.long),)
    kinds_of_error, words = (ValueError, "condition")
    if kind == "gated":  # one_hot finds labels out of range
        kinds_of_error, words = (ValueError, RuntimeError), r"condition|[Cc]lass|one_hot"
    with pytest.raises(kinds_of_error, match=words):
        getattr(prior(kind, num_classes=classes), call)(*arguments, condition)


@two_kinds
@pytest.mark.parametrize("option", ["temperature", "top_p"])
@pytest.mark.parametrize("value", [0, -0.5, math.inf, math.nan])
def test_options_out_of_range_raise(kind, option, value):
    for call in (lambda **o: prior(kind).sample(1, 2, 2, **o), lambda **o: distribution(torch.zeros(3), **o)):
        with pytest.raises(ValueError, match=option):
            call(**{option: value})
