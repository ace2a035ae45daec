"""The transformer prior: causality at every position, probabilities that add up, the cache, and clear errors."""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from helpers import NoFloat64, expect_stripes_are_learned, same_bits, snapshot, stripes
from torch import Tensor

from vqvae_lib import BatchLoader, CheckpointError, Trainer, VQVAEConfig, create_code_loader
from vqvae_lib import sampling_distribution as distribution
from vqvae_lib.model import VQVAE
from vqvae_lib.transformer import Block, TransformerConfig, TransformerPrior

SMALL = TransformerConfig(
    num_embeddings=3, hidden_dim=8, layers=2, heads=2, rows=4, columns=5, batch_size=32, num_epochs=2, device="cpu"
)
depths = pytest.mark.parametrize("depth", [1, 2])


def prior(scale: float = 10.0, **changes: object) -> TransformerPrior:
    """A prior whose weights are so large that codes matter."""
    model = TransformerPrior(replace(SMALL, **changes)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(scale)
    return model


def codes_for(model: TransformerPrior, count: int = 2, height: int = 3, width: int = 4) -> Tensor:
    return torch.randint(model.config.num_embeddings, (count, height, width, *model.stacked))


# --- mathematics ------------------------------------------------------------------------------------------------------


@depths
@pytest.mark.parametrize(("height", "width"), [(4, 5), (3, 4), (1, 3), (2, 1)])
def test_each_code_is_predicted_from_all_earlier_ones_and_no_other(depth, height, width):
    model, embedded = prior(depth=depth).double(), []
    model.embed.register_forward_hook(lambda _, args, out: embedded.append(out))
    logits = model(codes_for(model, 1, height, width)).flatten(2).sum((0, 1))
    T = height * width * depth
    assert logits.shape == (T,)
    weights = torch.arange(1.0, model.config.num_embeddings + 1)[:, None]
    outputs = (model(codes_for(model, 1, height, width)).flatten(2)[0] * weights).sum(0)
    rows = [torch.autograd.grad(one, embedded[-1], retain_graph=True)[0][0].abs().sum(-1) for one in outputs]
    assert torch.equal(torch.stack(rows) > 0, torch.ones(T, T).tril(-1).bool())


@torch.no_grad()
@pytest.mark.parametrize(("height", "width", "depth"), [(2, 3, 1), (1, 3, 2), (1, 1, 6)])
def test_probabilities_of_all_grids_add_up_to_one(height, width, depth):
    model, T = prior(num_embeddings=2, depth=depth, rows=height, columns=width), height * width * depth
    grids = torch.tensor(list(itertools.product(range(2), repeat=T))).view(-1, height, width, *model.stacked)
    p = model.nats(grids).double().flatten(1).sum(1).neg().exp()
    assert p.shape == (2**T,) and p.std() > 0
    assert float(p.sum()) == pytest.approx(1, abs=1e-6)


def test_a_block_is_causal_attention_and_two_layers_written_out():
    block, x = Block(SMALL).double().eval(), torch.randn(2, 5, 8, dtype=torch.float64)
    q, k, v = block.queries_keys_values(block.before_attention(x)).chunk(3, -1)
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        scores = q[..., part] @ k[..., part].mT / 2  # sqrt(8 / 2)
        scores = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -math.inf)
        heads.append(scores.softmax(-1) @ v[..., part])
    h = x + block.out(torch.cat(heads, -1))
    torch.testing.assert_close(block(x), h + block.mlp(block.before_mlp(h)))
    past: list[Tensor] = []
    one_by_one = torch.cat([block(x[:, t, None], past) for t in range(5)], 1)
    torch.testing.assert_close(one_by_one, block(x))
    assert [kept.shape for kept in past] == [(2, 2, 5, 4)] * 2


@torch.no_grad()
def test_row_column_and_depth_of_what_is_predicted_are_told_apart():
    """With one code and one head for all, outputs differ by place alone."""
    model = prior(num_embeddings=2, depth=2)
    model.embed.weight.zero_()
    model.heads[1].load_state_dict(model.heads[0].state_dict())
    outputs = model(torch.zeros(1, 4, 5, 2, dtype=torch.long))[0, 0].flatten()
    assert len(outputs.unique()) == 40


@depths
@pytest.mark.parametrize("K", [2, 16])
def test_uniform_logits_cost_log2_k_bits_and_nats_are_of_the_code_that_came(depth, K):
    model = prior(num_embeddings=K, depth=depth)
    codes = codes_for(model)
    expected = -model(codes).double().log_softmax(1).gather(1, codes[:, None])[:, 0]
    torch.testing.assert_close(model.nats(codes).double(), expected, rtol=0, atol=1e-6)
    assert model.nats(codes).shape == codes.shape
    for head in model.heads:
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
    numbers = model.summarize(torch.no_grad()(model.training_step)(codes, torch.zeros(2)))
    expected = {"total_loss": math.log(K), "bits_per_code": math.log2(K)}
    assert numbers == pytest.approx(expected | {"bits_per_image": 12 * depth * math.log2(K)}, rel=1e-6)


@torch.no_grad()
def test_labels_change_the_prediction_and_each_label_differently():
    model = prior(num_classes=4)
    codes = codes_for(model, 1).expand(4, -1, -1)
    nats = model.nats(codes, torch.arange(4)).sum((1, 2))
    assert len(set(nats.tolist())) == 4
    assert float(model.nats(codes[:1], torch.tensor([2])).sum()) == pytest.approx(float(nats[2]), rel=1e-5)


# --- sampling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["none", "first row"])
def test_samples_are_as_frequent_as_they_are_probable(given):
    model, n = prior(20, num_embeddings=2, rows=2, columns=2), 20_000
    every = torch.tensor(list(itertools.product(range(2), repeat=4))).view(-1, 2, 2)
    with torch.no_grad():
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


@depths
@torch.no_grad()
def test_sampling_with_kept_keys_and_values_draws_what_whole_passes_would(depth):
    model = prior(num_embeddings=5, num_classes=3, depth=depth)
    labels = torch.tensor([0, 2, 1])
    drawn = model.sample(3, 3, 4, labels, temperature=0.7, top_p=0.9, seed=1)
    grid, generator = torch.zeros(3, 3, 4, *model.stacked, dtype=torch.long), torch.Generator().manual_seed(1)
    flat = grid.view(3, -1)
    for t in range(flat.shape[1]):
        p = distribution(model(grid, labels).flatten(2)[:, :, t], 0.7, 0.9)
        flat[:, t] = torch.multinomial(p, 1, generator=generator)[:, 0]
    assert drawn.shape == grid.shape and torch.equal(drawn, grid)


@depths
@torch.no_grad()
def test_outputs_with_and_without_the_cache_are_equal(depth):
    model, outputs = prior(depth=depth), []
    codes = codes_for(model)

    def draw(logits: Tensor, i: int, j: int) -> Tensor:
        outputs.append((logits, i, j))
        return codes[:, i, j].view(len(codes), depth)[:, (len(outputs) - 1) % depth]

    assert torch.equal(model.fill(torch.zeros_like(codes), torch.zeros_like(codes).bool(), draw), codes)
    torch.testing.assert_close(torch.stack([one for one, _, _ in outputs], -1), model(codes).flatten(2))
    places = [place for place in itertools.product(range(3), range(4)) for _ in range(depth)]
    assert [(i, j) for _, i, j in outputs] == places


@depths
@pytest.mark.parametrize("training", [True, False])
def test_same_seed_same_samples_and_nothing_else_moves_or_is_seeded(depth, training):
    before = torch.get_rng_state()
    model = prior(depth=depth, dropout=0.5).train(training)
    state = snapshot(model)
    one, same, other = (model.sample(8, 4, 4, seed=seed) for seed in (0, np.int64(0), 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert same_bits(model.state_dict(), state) and torch.equal(torch.get_rng_state(), before)
    assert model.training == training


@depths
def test_completion_keeps_what_is_given_and_draws_the_rest(depth):
    model = prior(num_embeddings=8, depth=depth)
    codes = codes_for(model, 6)
    given = torch.rand(codes.shape) < 0.5
    start = torch.where(given, codes, -1)  # what is not given may be anything
    drawn = model.complete(start, given, seed=2)
    assert torch.equal(drawn[given], codes[given]) and not torch.equal(drawn, codes)
    assert 0 <= drawn.min() <= drawn.max() < 8 and (start[~given] == -1).all()
    assert torch.equal(model.complete(codes, torch.ones(codes.shape[1:], dtype=torch.bool)), codes)


# --- training and devices ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_classes", [0, 3])
def test_the_trainer_teaches_it_what_there_is_to_know_and_labels_save_their_bits(num_classes):
    config = replace(SMALL, hidden_dim=16, num_classes=num_classes, lr=2e-2, precision="float32")
    expect_stripes_are_learned(TransformerPrior(config), steps=70)


@depths
def test_every_weight_learns_and_lies_as_optimizers_and_files_want_it(depth):
    model = prior(num_classes=2, depth=depth)
    model.training_step(codes_for(model, 8, 4, 5), torch.arange(8) % 2)["total_loss"].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert all(value.is_contiguous() for value in model.state_dict().values())


def test_weights_are_a_function_of_the_seed_and_a_saved_run_with_dropout_goes_on(tmp_path):
    config = replace(SMALL, dropout=0.2)

    def run() -> Trainer:
        trainer = Trainer(TransformerPrior(config), config)
        trainer.fit(BatchLoader(stripes(), 32, shuffle=True, drop_last=True), steps=4)
        return trainer

    one, other = run(), run()
    assert same_bits(one.model.state_dict(), other.model.state_dict())
    fresh = Trainer(TransformerPrior(replace(config, seed=3)), replace(config, seed=3))
    assert not torch.equal(fresh.model.embed.weight, TransformerPrior(config).embed.weight)
    fresh.load(one.save(tmp_path / "prior.pt"))
    assert same_bits(fresh.model.state_dict(), one.model.state_dict())
    wider = replace(config, hidden_dim=16)
    with pytest.raises(CheckpointError):
        Trainer(TransformerPrior(wider), wider).load(tmp_path / "prior.pt")


@depths
def test_devices_without_float64_or_with_values_that_are_slow_to_read_serve_too(depth):
    model, labels = prior(num_classes=2, depth=depth), torch.tensor([0, 1])
    codes = codes_for(model)
    with NoFloat64():
        model.training_step(codes, labels)
        model.sample(2, 2, 2, labels, top_p=0.5)
    meta = model.to("meta").training_step(codes.to("meta"), labels.to("meta"))  # there are no values to read
    assert meta["total_loss"].is_meta


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_prior_of_another_precision_trains_and_draws(dtype):
    model, labels = prior(1, num_classes=2).to(dtype), torch.tensor([0, 1])
    assert model.training_step(codes_for(model), labels)["total_loss"].isfinite()
    assert model.sample(2, 3, 3, labels).dtype == torch.int64
    with torch.autocast("cpu", torch.bfloat16):
        assert prior(1)(codes_for(model)).dtype == torch.float32


@pytest.mark.parametrize(
    "choices",
    [
        {"quantizer": "residual", "num_codebooks": 3, "num_embeddings": 16},
        {"quantizer": "fsq", "levels": (3, 3, 4, 4), "num_embeddings": 144},
    ],
)
def test_codes_of_newer_quantizers_reach_it_and_what_it_draws_is_decoded(choices, digits):
    config = VQVAEConfig(hidden_dim=8, embedding_dim=4, device="cpu", **choices)
    model, images = VQVAE(config), digits.subset(slice(0, 40))
    model.initialize(images.floats())
    own = {"num_embeddings": config.num_embeddings, "depth": config.num_codebooks, "num_classes": 10}
    coder = prior(rows=7, columns=7, **own)
    codes, labels = next(iter(create_code_loader(coder.config, model, images)))
    assert codes.shape == (32, 7, 7, *coder.stacked)
    assert coder.training_step(codes, labels)["total_loss"].isfinite()
    assert model.decode(coder.sample(2, 7, 7, labels[:2])).shape == (2, 1, 28, 28)


# --- bad input --------------------------------------------------------------------------------------------------------


NO_CODES = torch.zeros(2, 4, 4), torch.zeros(4, 4).long(), torch.zeros(0, 4, 4).long(), torch.zeros(1, 5, 5).long()


@depths
@pytest.mark.parametrize("codes", [*NO_CODES, torch.full((1, 4, 4), 3), torch.full((1, 4, 4), -1)])
@pytest.mark.parametrize("call", ["forward", "nats", "training_step", "complete"])
def test_codes_that_are_none_raise(codes, call, depth):
    codes = codes[..., None].repeat_interleave(depth, -1) if depth > 1 else codes
    given = [torch.ones_like(codes, dtype=torch.bool)] * (call == "complete")
    with pytest.raises(ValueError, match="codes"):
        getattr(prior(depth=depth), call)(codes, *given)
    for wrong in (torch.zeros(2, 3, 4, 3), torch.zeros(2, 3, 4, 1), torch.zeros(2, 3) if depth > 1 else codes):
        with pytest.raises(ValueError, match="codes"):
            prior(depth=depth)(wrong.long() if wrong is not codes else codes)


@pytest.mark.parametrize("call", ["forward", "nats", "sample"])
@pytest.mark.parametrize(
    ("classes", "condition"),
    [
        *((4, torch.tensor(labels)) for labels in ([1, 4], [-1, 0], [1, 2, 3], [1.0, 2.0], [[1], [2]])),
        (4, None),
        (0, torch.tensor([1, 2])),
    ],
)
def test_a_condition_missing_or_wrong_raises(call, classes, condition):
    arguments = (2, 3, 3) if call == "sample" else (torch.zeros(2, 3, 3, dtype=torch.long),)
    with pytest.raises(ValueError, match="condition"):
        getattr(prior(num_classes=classes), call)(*arguments, condition)


@pytest.mark.parametrize("option", ["temperature", "top_p"])
@pytest.mark.parametrize("value", [0, -0.5, math.inf, math.nan])
def test_options_out_of_range_raise(option, value):
    with pytest.raises(ValueError, match=option):
        prior().sample(1, 2, 2, **{option: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *itertools.product(("num_embeddings", "hidden_dim", "layers", "heads", "rows", "columns", "depth"), (0, 1.5)),
        *{"num_classes": -1, "heads": 3, "dropout": 1, "lr": 0, "schedule": "linear"}.items(),
    ],
)
def test_a_bad_choice_raises_naming_field_and_value(name, value):
    with pytest.raises(ValueError, match=rf"^{name} = {value!r}[ :]"):
        TransformerConfig(**{name: value})
    assert TransformerConfig(**asdict(SMALL)) == SMALL and "device" not in SMALL.identity()
