"""The prior: causality at every position, probabilities that add up, sampling that follows them, and clear errors."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import FrozenInstanceError, asdict, fields, replace

import pytest
import torch
import torch.nn.functional as F
from helpers import same_bits
from torch import Tensor
from torch.utils.data import TensorDataset

from vqvae_lib import (
    VQVAE,
    BatchLoader,
    CheckpointError,
    GatedStack,
    MaskedConv2d,
    MaskedStack,
    PixelCNN,
    PriorConfig,
    Trainer,
    VQVAEConfig,
    VQVAETrainer,
    choose_codes,
    collect_indices,
    create_code_loader,
    sampling_distribution,
)

SMALL = PriorConfig(num_embeddings=3, hidden_dim=8, layers=3, batch_size=32, num_epochs=2, device="cpu")
stacks = pytest.mark.parametrize("stack", ["gated", "masked"])


def prior(**changes) -> PixelCNN:
    return PixelCNN(replace(SMALL, **changes)).eval()


def grids(K: int, height: int, width: int) -> Tensor:
    """Every grid there is, (K^(H W), H, W)."""
    return torch.tensor(list(itertools.product(range(K), repeat=height * width))).view(-1, height, width)


def dependence(stack: torch.nn.Module, channels: int, height: int, width: int) -> Tensor:
    """Say by gradients which positions of the input each position of the output sees: (H W, H W) bool."""
    x = torch.randn(1, channels, height, width, dtype=torch.float64, requires_grad=True)
    y = stack.double().eval()(x).sum((0, 1)).flatten()
    rows = [torch.autograd.grad(value, x, retain_graph=True)[0].abs().sum((0, 1)).flatten() for value in y]
    return torch.stack(rows) > 0


# --- causality --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kernel", "layers"), [(3, 8), (5, 4)])
@pytest.mark.parametrize(("height", "width"), [(7, 7), (5, 6), (1, 4)])
def test_the_gated_stack_sees_every_earlier_position_and_no_other(kernel, layers, height, width):
    torch.manual_seed(0)
    stack = GatedStack(replace(SMALL, kernel_size=kernel, layers=layers))
    earlier = torch.ones(height * width, height * width).tril(-1).bool()
    assert torch.equal(dependence(stack, 8, height, width), earlier)


@pytest.mark.parametrize(("kernel", "slope"), [(3, 1), (5, 2)])
def test_the_naive_stack_sees_no_later_position_and_has_a_blind_spot(kernel, slope):
    torch.manual_seed(0)
    sees = dependence(MaskedStack(replace(SMALL, kernel_size=kernel, layers=14)), 8, 7, 7)
    expected = torch.zeros(7, 7, 7, 7, dtype=torch.bool)
    for i, j, k, m in itertools.product(range(7), repeat=4):
        expected[i, j, k, m] = (k == i and m < j) or (k < i and m - j <= slope * (i - k))
    assert torch.equal(sees, expected.view(49, 49))


def test_with_few_layers_the_gated_stack_reaches_one_position_a_layer():
    torch.manual_seed(0)
    sees = dependence(GatedStack(replace(SMALL, layers=2)), 8, 7, 7).view(7, 7, 7, 7)
    assert sees[6, 3, 3, 1]
    assert not sees[6, 3, 2].any()
    assert not sees[6, 3, 5, 6]


@pytest.mark.parametrize(("layers", "enough"), [(5, False), (6, True)])
def test_a_grid_of_seven_by_seven_needs_six_layers(layers, enough):
    torch.manual_seed(0)
    sees = dependence(GatedStack(replace(SMALL, layers=layers)), 8, 7, 7)
    assert torch.equal(sees, torch.ones(49, 49).tril(-1).bool()) == enough


@stacks
@torch.no_grad()
def test_a_code_changes_its_own_and_earlier_predictions_never(stack):
    model = prior(stack=stack)
    codes = torch.randint(3, (1, 4, 4))
    logits = model(codes).flatten(2)
    for position in range(16):
        other = codes.clone().flatten(1)
        other[0, position] = (other[0, position] + 1) % 3
        moved = (model(other.view(1, 4, 4)).flatten(2) - logits).abs().amax((0, 1)) > 0
        assert not moved[: position + 1].any()
        # The next one sees it, if there is one; of the naive stack it may lie in the blind spot.
        assert stack == "masked" or moved[position + 1 : position + 2].all()


@stacks
@pytest.mark.parametrize("layers", [1, 2, 5])
def test_a_stack_has_the_layers_that_were_asked_for(stack, layers):
    assert len(prior(stack=stack, layers=layers).stack.layers) == layers


def test_the_naive_stack_adds_what_each_layer_makes_of_the_sum_so_far():
    x, given = torch.randn(2, 8, 4, 5), torch.randn(2, 3, 1, 1)
    stack = MaskedStack(SMALL, condition_dim=3).eval()
    assert stack.condition.bias is None
    h = stack.layers[0](x) + stack.condition(given)
    for layer in stack.layers[1:]:
        h = h + layer(h.relu())
    torch.testing.assert_close(stack(x, given), h)


def test_gated_layers_are_the_gates_of_both_stacks_and_a_sum():
    """Two layers written out, with their moves: down a row for the rows above, right a position for the row so far."""
    x, given = torch.randn(2, 8, 4, 5), torch.randn(2, 3, 1, 1)
    stack = GatedStack(replace(SMALL, layers=2), condition_dim=3).eval()
    v, h = torch.zeros_like(x), torch.zeros_like(x)
    v[:, :, 1:], h[..., 1:] = x[:, :, :-1], x[..., :-1]
    for layer in stack.layers:
        assert layer.condition.bias is None
        above = layer.vertical(F.pad(v, (1, 1, 1, 0)))
        for_v, for_h = layer.condition(given).split(16, dim=1)
        a, b = (layer.horizontal(F.pad(h, (1, 0))) + layer.link(above) + for_h).split(8, dim=1)
        h = h + layer.out(torch.tanh(a) * torch.sigmoid(b))
        a, b = (above + for_v).split(8, dim=1)
        v = torch.tanh(a) * torch.sigmoid(b)
    torch.testing.assert_close(stack(x, given), h)


@pytest.mark.parametrize(("kind", "rows"), [("A", ["111", "100", "000"]), ("B", ["111", "110", "000"])])
def test_masks_leave_what_comes_before(kind, rows):
    layer = MaskedConv2d(2, 3, kind)
    assert ["".join(str(int(v)) for v in row) for row in layer.mask] == rows
    assert layer(torch.randn(1, 2, 5, 6)).shape == (1, 2, 5, 6)


# --- likelihood -------------------------------------------------------------------------------------------------------


@stacks
@torch.no_grad()
def test_probabilities_of_all_grids_add_up_to_one(stack):
    model = prior(num_embeddings=2, stack=stack).double()
    model.forward = lambda codes, condition=None: model.head(model.stack(model._embed(codes))).double()
    p = model.nats(grids(2, 2, 2)).sum((1, 2)).neg().exp()
    assert p.shape == (16,)
    assert p.std() > 0
    assert float(p.sum()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("K", [2, 16, 100])
def test_uniform_logits_cost_log2_k_bits(K):
    model = prior(num_embeddings=K)
    torch.nn.init.zeros_(model.head[-1].weight)
    torch.nn.init.zeros_(model.head[-1].bias)
    numbers = model.summarise(torch.no_grad()(model.training_step)(torch.randint(K, (5, 3, 4)), torch.zeros(5)))
    assert numbers["bits_per_code"] == pytest.approx(math.log2(K), rel=1e-6)
    assert numbers["bits_per_image"] == pytest.approx(12 * math.log2(K), rel=1e-6)
    assert numbers["total_loss"] == pytest.approx(math.log(K), rel=1e-6)


@torch.no_grad()
def test_nats_are_the_logits_of_the_code_that_came():
    model, codes = prior(), torch.randint(3, (2, 4, 5))
    expected = -model(codes).double().log_softmax(1).gather(1, codes[:, None])[:, 0]
    torch.testing.assert_close(model.nats(codes).double(), expected, rtol=0, atol=1e-6)


@stacks
@torch.no_grad()
def test_labels_change_the_prediction_and_each_label_differently(stack):
    model, codes = prior(num_classes=4, stack=stack), torch.randint(3, (1, 3, 3)).expand(4, -1, -1)
    nats = model.nats(codes, torch.arange(4)).sum((1, 2))
    assert len(set(nats.tolist())) == 4
    again = model.nats(codes[:1], torch.tensor([2])).sum()
    assert float(again) == pytest.approx(float(nats[2]), rel=1e-5)


def test_a_map_as_condition_reaches_all_layers_or_the_last_alone():
    condition = torch.randn(2, 5, 4, 4)
    for fed, fed_layers in (("all", [True] * 3), ("last", [False, False, True])):
        model = PixelCNN(SMALL, condition_dim=5, fed=fed)
        assert [layer.condition is not None for layer in model.stack.layers] == fed_layers
        codes = torch.randint(3, (2, 4, 4))
        assert not torch.allclose(model(codes, condition), model(codes, condition + 1))
        uniform = condition[:, :, :1, :1]
        torch.testing.assert_close(model(codes, uniform), model(codes, uniform.expand(-1, -1, 4, 4)))


def test_the_weights_are_a_function_of_the_seed_and_disturb_no_random_numbers():
    before = torch.get_rng_state()
    one, same, other = PixelCNN(SMALL), PixelCNN(SMALL), PixelCNN(replace(SMALL, seed=1))
    assert torch.equal(torch.get_rng_state(), before)
    assert same_bits(one.state_dict(), same.state_dict())
    assert not torch.equal(one.embed.weight, other.embed.weight)


# --- sampling ---------------------------------------------------------------------------------------------------------


@stacks
@pytest.mark.parametrize("given", ["none", "first row"])
def test_samples_are_as_frequent_as_they_are_probable(stack, given):
    model, n = prior(num_embeddings=2, stack=stack), 20_000
    with torch.no_grad():
        for p in model.head.parameters():
            p.mul_(3)  # away from the uniform
        every = grids(2, 2, 2)
        probability = model.nats(every).sum((1, 2)).double().neg().exp()
    mask = torch.tensor([[given != "none"] * 2, [False] * 2])
    start = torch.tensor([[1, 0], [0, 0]]).expand(n, 2, 2)
    possible = ((every == start[0]) | ~mask).all((1, 2))
    expected = torch.where(possible, probability, 0.0)
    expected = n * expected / expected.sum()
    drawn = model.complete(start, mask, seed=3)
    counts = torch.bincount((drawn.flatten(1) * torch.tensor([8, 4, 2, 1])).sum(1), minlength=16)
    assert counts[~possible].sum() == 0
    chi2 = float(((counts - expected) ** 2 / expected)[possible].sum())
    assert chi2 < {16: 37.7, 4: 16.3}[int(possible.sum())]  # exceeded once in a thousand seeds


@stacks
@torch.no_grad()
def test_sampling_row_by_row_draws_what_whole_passes_would(stack):
    model = prior(num_embeddings=5, num_classes=3, stack=stack)
    labels = torch.tensor([0, 2, 1])
    drawn = model.sample(3, 4, 5, labels, temperature=0.7, top_p=0.9, seed=1)
    grid, generator = torch.zeros(3, 4, 5, dtype=torch.long), torch.Generator().manual_seed(1)
    for i, j in itertools.product(range(4), range(5)):
        p = sampling_distribution(model(grid, labels)[:, :, i, j], 0.7, 0.9)
        grid[:, i, j] = torch.multinomial(p, 1, generator=generator)[:, 0]
    assert torch.equal(drawn, grid)


@torch.no_grad()
def test_a_condition_that_differs_from_row_to_row_is_followed():
    model = PixelCNN(SMALL, condition_dim=2).eval()
    condition = 3 * torch.randn(2, 2, 4, 3)
    drawn = model.sample(2, 4, 3, condition, temperature=1e-6)
    assert torch.equal(drawn, model(drawn, condition).argmax(1))


@pytest.mark.parametrize("shape", [(4, 5, 1, 1), (4, 3), (1, 3, 1, 1), (4, 3, 4)])
def test_a_condition_that_does_not_fit_the_grids_is_refused(shape):
    model = PixelCNN(SMALL, condition_dim=3)
    message = re.escape(f"condition is {shape}: expected (4, 3, H, W)")
    with pytest.raises(ValueError, match=message):
        model(torch.zeros(4, 4, 4, dtype=torch.long), torch.zeros(shape))
    with pytest.raises(ValueError, match=message):
        model.sample(4, 4, 4, torch.zeros(shape))


@pytest.mark.parametrize("height", [1, 2])
@pytest.mark.parametrize("width", [1, 3])
def test_a_condition_is_a_map_of_one_or_all_rows_and_columns(height, width):
    model = PixelCNN(SMALL, condition_dim=2).eval()
    condition = 3 * torch.randn(2, 2, height, width)
    drawn = model.sample(2, 2, 3, condition, temperature=1e-6)
    assert torch.equal(drawn, model(drawn, condition).argmax(1))


@torch.no_grad()
def test_one_class_is_a_label_too_and_one_grid_batch_enough():
    model = prior(num_classes=1)
    numbers = model.training_step(torch.zeros(1, 2, 3, dtype=torch.long), torch.zeros(1, dtype=torch.long))
    assert float(numbers["bits_per_image"]) == pytest.approx(6 * float(numbers["bits_per_code"]))


def test_of_a_single_code_there_is_one_grid():
    assert prior(num_embeddings=1).sample(3, 2, 2).tolist() == [[[0, 0], [0, 0]]] * 3


def test_progress_counts_every_position(progress):
    prior().sample(1, 2, 3)
    assert progress.steps == [[6, 1, 1, 1, 1, 1, 1]]


def test_towards_temperature_zero_the_likeliest_code_takes_all():
    logits = torch.tensor([[1.0, 3.0, 2.0], [0.5, 0.1, 0.4]])
    for temperature in (1e-5, 1e-30, 1e-300):
        assert sampling_distribution(logits, temperature).tolist() == [[0, 1, 0], [1, 0, 0]]
    assert sampling_distribution(torch.tensor([1e3, 999.0]), 1e-306).tolist() == [1, 0]  # as logits, beyond float64
    torch.testing.assert_close(sampling_distribution(logits, 1e9), torch.full((2, 3), 1 / 3, dtype=torch.float64))
    torch.testing.assert_close(sampling_distribution(logits, 2.0), (logits.double() / 2).softmax(-1))
    model = prior()
    drawn = model.sample(4, 3, 3, temperature=1e-9)
    assert torch.equal(drawn, model(drawn).argmax(1))
    assert torch.equal(drawn, model.sample(4, 3, 3, temperature=1e-9, seed=5))


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [
        (1.0, [0, 1, 2, 3]),
        (0.96, [0, 1, 2, 3]),
        (0.94, [0, 1, 3]),
        (0.86, [0, 1, 3]),
        (0.84, [1, 3]),
        (0.71, [1, 3]),
        (0.69, [1]),
        (1e-9, [1]),
    ],
)
def test_top_p_keeps_the_fewest_codes_that_reach_it(top_p, kept):
    p = torch.tensor([0.1, 0.7, 0.05, 0.15], dtype=torch.float64)
    q = sampling_distribution(p.log(), top_p=top_p)
    assert q.nonzero()[:, 0].tolist() == kept
    torch.testing.assert_close(q[kept], p[kept] / p[kept].sum())


def test_top_p_of_equal_codes_keeps_the_first_ones():
    assert sampling_distribution(torch.zeros(4), top_p=0.5).tolist() == [0.5, 0.5, 0, 0]


def test_completion_keeps_what_is_given_and_draws_the_rest():
    model = prior(num_embeddings=8)
    codes = torch.randint(8, (6, 5, 5))
    given = torch.rand(6, 5, 5) < 0.5
    junk = torch.where(given, codes, -1)
    drawn = model.complete(junk, given, seed=2)
    assert torch.equal(drawn[given], codes[given])
    assert 0 <= drawn.min() <= drawn.max() < 8
    assert not torch.equal(drawn, codes)
    assert torch.equal(junk, torch.where(given, codes, -1))  # the caller's grid is as it was
    assert torch.equal(model.complete(codes, torch.ones(5, 5, dtype=torch.bool)), codes)


@pytest.mark.parametrize("training", [True, False])
def test_same_seed_same_samples_and_nothing_else_moves(training, capsys):
    model = prior(dropout=0.5).train(training)
    before, state = torch.get_rng_state(), {name: value.clone() for name, value in model.state_dict().items()}
    one, same, other = (model.sample(8, 4, 4, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(model.sample(8, 4, 4), one)  # 0 is the default
    assert same_bits(model.state_dict(), state)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training == training
    shown = capsys.readouterr()
    assert shown.out == "" and "drawing positions" in shown.err


# --- training ---------------------------------------------------------------------------------------------------------


def stripes(n: int = 256) -> TensorDataset:
    """Grids whose rows repeat their first code, drawn at random: 4 log2 3 bits. The label is the first row's."""
    first = torch.randint(3, (n, 4, 1), generator=torch.Generator().manual_seed(0))
    return TensorDataset(first.expand(n, 4, 4).contiguous(), first[:, 0, 0])


@pytest.mark.parametrize("num_classes", [0, 3])
def test_the_trainer_teaches_it_what_there_is_to_know_and_labels_save_their_bits(num_classes):
    config = replace(SMALL, layers=2, num_classes=num_classes, lr=3e-2, precision="float32")
    loader = BatchLoader(stripes(), config.batch_size, shuffle=True, drop_last=True)
    trainer = Trainer(PixelCNN(config), config)
    history = trainer.fit(loader, steps=100)
    assert history.keys() == {"total_loss", "bits_per_code", "bits_per_image", "step", "lr"}
    numbers = trainer.evaluate(loader)
    least = (4 - (num_classes > 0)) * math.log2(3)
    assert least - 0.3 < numbers["bits_per_image"] < least + 0.5
    assert numbers["bits_per_image"] == pytest.approx(16 * numbers["bits_per_code"], rel=1e-5)
    drawn = trainer.model.sample(64, 4, 4, torch.arange(64) % 3 if num_classes else None)
    assert ((drawn == drawn[:, :, :1]).all(2)).float().mean() > 0.95
    if num_classes:
        assert (drawn[:, 0, 0] == torch.arange(64) % 3).float().mean() > 0.95


@stacks
def test_every_weight_learns(stack):
    model = PixelCNN(replace(SMALL, num_classes=2, stack=stack))
    model.training_step(torch.randint(3, (8, 4, 4)), torch.arange(8) % 2)["total_loss"].backward()
    # What the last layer's vertical stack hands on goes to the link alone: all its weights still learn.
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_same_seed_same_bits_with_dropout_and_a_saved_run_goes_on(tmp_path):
    config = replace(SMALL, dropout=0.2)

    def run(steps: int) -> Trainer:
        trainer = Trainer(PixelCNN(config), config)
        trainer.fit(BatchLoader(stripes(), 32, shuffle=True, drop_last=True), steps=steps)
        return trainer

    one, other = run(6), run(6)
    assert same_bits(one.model.state_dict(), other.model.state_dict())
    fresh = Trainer(PixelCNN(replace(config, seed=3)), replace(config, seed=3))
    fresh.load(one.save(tmp_path / "prior.pt"))
    assert same_bits(fresh.model.state_dict(), one.model.state_dict())
    wider = replace(config, hidden_dim=16)
    with pytest.raises(CheckpointError, match="hidden_dim = 8, here 16"):
        Trainer(PixelCNN(wider), wider).load(tmp_path / "prior.pt")


def test_a_loader_of_codes_hands_out_the_models_codes_with_their_labels(config, digits):
    model = VQVAETrainer(config).model
    model(digits.floats(slice(0, 64)))
    images = digits.subset(slice(0, 70))
    test = create_code_loader(SMALL, model, images, train=False)
    codes, labels = (torch.cat(parts) for parts in zip(*test, strict=True))
    assert torch.equal(codes, collect_indices(model, [(images.floats(), images.labels)]))
    assert torch.equal(labels, images.labels)
    train = create_code_loader(SMALL, model, images)
    assert [len(x) for x, _ in train] == [32, 32]
    assert (train.shuffle, train.seed) == (True, SMALL.seed)
    wide = replace(SMALL, num_embeddings=16, num_classes=10)
    trainer = Trainer(PixelCNN(wide), wide)
    trainer.fit(train, steps=3)
    assert math.isfinite(trainer.evaluate(test)["bits_per_image"])
    assert isinstance(model, VQVAE) and model.decode(trainer.model.sample(2, 7, 7, labels[:2])).shape == (2, 1, 28, 28)


# --- codes chosen for their price -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def coder() -> VQVAE:
    """A model whose three codes lie among its vectors, so that a price makes a difference."""
    model = VQVAE(VQVAEConfig(hidden_dim=8, num_embeddings=3, embedding_dim=4, device="cpu"))
    model(torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(0)))  # the first batch places the codes
    return model.eval()


def test_at_no_price_the_nearest_codes_are_chosen(coder, digits):
    x = digits.floats(slice(0, 8))
    assert torch.equal(choose_codes(coder, prior(), x, 0.0), coder.encode(x))


@stacks
@torch.no_grad()
def test_each_code_is_the_best_of_distance_and_price_given_those_before(stack, coder, digits):
    torch.manual_seed(0)
    x, model = digits.floats(slice(0, 4)), prior(stack=stack)
    model.head[-1].weight.mul_(20)  # prices that differ
    z_e = coder.encoder(x).movedim(1, -1)  # (4, 7, 7, D)
    price = float((z_e - z_e.mean((0, 1, 2))).square().sum(-1).mean()) / 4
    expected = torch.zeros(4, 7, 7, dtype=torch.long)
    for i, j in itertools.product(range(7), range(7)):
        nats = -model(expected)[:, :, i, j].log_softmax(1)
        distances = (z_e[:, i, j, None] - coder.vq.codebook).square().sum(-1)
        expected[:, i, j] = (distances + price * nats).argmin(1)
    found = choose_codes(coder, model, x, price)
    assert torch.equal(found, expected)
    assert not torch.equal(found, coder.encode(x))  # else the price has decided nothing


def test_where_distance_counts_for_nothing_the_likeliest_code_is_chosen(coder, digits):
    model = prior()
    found = choose_codes(coder, model, digits.floats(slice(0, 2)), 1e9)
    assert torch.equal(found, model.sample(2, 7, 7, temperature=1e-6))


def test_choosing_codes_leaves_model_and_prior_as_they_are(coder, digits):
    model = prior().train()
    coder.train()
    before = {name: value.clone() for name, value in coder.state_dict().items()}
    choose_codes(coder, model, digits.floats(slice(0, 2)), 0.1)
    assert coder.training
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in coder.state_dict().items())
    coder.eval()


@pytest.mark.parametrize(
    ("K", "price", "message"),
    [
        (3, -0.1, "price = -0.1 is not possible"),
        (3, math.nan, "price = nan is not possible"),
        (3, math.inf, "price = inf is not possible"),
        (4, 0.1, "num_embeddings = 4 is not possible: .* 3"),
    ],
)
def test_a_price_or_a_prior_that_does_not_fit_raises(coder, K, price, message):
    with pytest.raises(ValueError, match=message):
        choose_codes(coder, prior(num_embeddings=K), torch.rand(1, 1, 28, 28), price)


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.zeros(2, 4, 4), r"codes are torch\.float32 \(2, 4, 4\): expected int64"),
        (torch.zeros(4, 4, dtype=torch.long), r"\(4, 4\): expected int64 \(B, H, W\)"),
        (torch.zeros(0, 4, 4, dtype=torch.long), r"\(0, 4, 4\)"),
        (torch.full((1, 4, 4), 3), r"codes span 3 to 3: .*\[0, 3\)"),
        (torch.full((1, 4, 4), -1), r"codes span -1 to -1"),
    ],
)
def test_codes_that_are_none_raise(codes, message):
    for call in (prior(), prior().nats, prior().training_step):
        with pytest.raises(ValueError, match=message):
            call(codes)
    with pytest.raises(ValueError, match=message):
        prior().complete(codes, torch.ones_like(codes, dtype=torch.bool))


@pytest.mark.parametrize(
    ("num_classes", "labels", "message"),
    [
        (4, None, "num_classes = 4 and needs labels"),
        (0, torch.tensor([1, 2]), "num_classes = 0 and takes no labels"),
        (4, torch.tensor([1, 4]), r"labels span 1 to 4: .*\[0, 4\)"),
        (4, torch.tensor([-1, 0]), "labels span -1 to 0"),
        (4, torch.tensor([1, 2, 3]), r"labels are torch\.int64 \(3,\): expected int64 \(2,\)"),
        (4, torch.tensor([1.0, 2.0]), r"labels are torch\.float32"),
    ],
)
def test_labels_missing_or_wrong_raise(num_classes, labels, message):
    model, codes = prior(num_classes=num_classes), torch.zeros(2, 3, 3, dtype=torch.long)
    for call in (
        lambda: model(codes, labels),
        lambda: model.nats(codes, labels),
        lambda: model.sample(2, 3, 3, labels),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(({"temperature": value}, f"temperature = {value}") for value in (0, -1.0, math.inf, math.nan)),
        *(({"top_p": value}, f"top_p = {value}") for value in (0, -0.5, 1.1, math.nan)),
    ],
)
def test_options_out_of_range_raise_before_any_work(options, message):
    with pytest.raises(ValueError, match=message):
        prior().sample(1, 2, 2, **options)
    with pytest.raises(ValueError, match=message):  # even where nothing is left to draw
        prior().complete(torch.zeros(1, 2, 2, dtype=torch.long), torch.ones(2, 2, dtype=torch.bool), **options)
    with pytest.raises(ValueError, match=message):
        sampling_distribution(torch.zeros(3), **options)


@pytest.mark.parametrize("given", [torch.zeros(2, 4, 4), torch.zeros(3, 4, dtype=torch.bool)])
def test_a_mask_that_is_none_raises(given):
    with pytest.raises(ValueError, match=r"given is .*expected bool \(2, 4, 4\)"):
        prior().complete(torch.zeros(2, 4, 4, dtype=torch.long), given)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            (name, value)
            for name in ("num_embeddings", "layers", "batch_size", "num_epochs")
            for value in (0, 1.5, True)
        ),
        *(("num_classes", value) for value in (-1, 2.0)),
        *(("kernel_size", value) for value in (1, 4, 3.0)),
        *(("dropout", value) for value in (-0.1, 1, math.nan, "0.1")),
        ("hidden_dim", 7),
        ("stack", "Gated"),
        ("lr", 0),
        ("seed", -1),
        ("schedule", "linear"),
        ("precision", "bf16"),
        ("device", "abacus"),
    ],
)
def test_a_bad_choice_raises_naming_field_and_value(name, value):
    with pytest.raises(ValueError, match=rf"^{name} = {value!r} "):
        PriorConfig(**{name: value})


def test_the_defaults_are_those_that_the_chapters_speak_of():
    given = {name: value for name, value in vars(PriorConfig()).items() if name not in ("device", "precision")}
    assert given == {
        **{"num_embeddings": 512, "num_classes": 0, "hidden_dim": 64, "layers": 8, "kernel_size": 3, "dropout": 0.0},
        **{"stack": "gated", "lr": 4e-3, "schedule": "one_cycle", "batch_size": 64, "num_epochs": 10, "seed": 42},
    }


def test_the_least_that_is_possible_is_taken():
    least = PriorConfig(num_embeddings=1, num_classes=0, hidden_dim=2, layers=1, kernel_size=3, dropout=0)
    assert PixelCNN(least)(torch.zeros(1, 1, 1, dtype=torch.long)).shape == (1, 1, 1, 1)


def test_the_config_is_frozen_and_every_field_documented():
    with pytest.raises(FrozenInstanceError):
        SMALL.layers = 2
    assert [f.name for f in fields(PriorConfig) if f.name not in PriorConfig.__doc__] == []
    assert PriorConfig(**asdict(SMALL)) == SMALL
