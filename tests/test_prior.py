"""The PixelCNN: causality at every position, masks, maps as conditions, drawing rules. See also ``test_priors``."""

from __future__ import annotations

import itertools
import math
from dataclasses import FrozenInstanceError, asdict, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import same_bits, snapshot
from small_priors import PIXELCNN as SMALL
from torch import Tensor

from vqvae_book.extras import choose_codes
from vqvae_lib import VQVAE, VQVAEConfig, collect_indices
from vqvae_lib import sampling_distribution as distribution
from vqvae_lib.prior import GatedStack, MaskedConv2d, MaskedStack, PixelCNN, PriorConfig, create_code_loader

stacks = pytest.mark.parametrize("stack", ["gated", "masked"])


def prior(condition_dim: int | None = None, last_layer_only: bool = False, **changes) -> PixelCNN:
    options = {"condition_dim": condition_dim} | ({"last_layer_only": True} if last_layer_only else {})
    return PixelCNN(replace(SMALL, **changes), **options).eval()


def dependence(stack: torch.nn.Module, height: int, width: int) -> Tensor:
    """Say by gradients which positions of the input each position of the output sees: (H W, H W) bool."""
    x = torch.randn(1, SMALL.hidden_dim, height, width, dtype=torch.float64, requires_grad=True)
    y = stack.double().eval()(x).sum((0, 1)).flatten()
    rows = [torch.autograd.grad(value, x, retain_graph=True)[0].abs().sum((0, 1)).flatten() for value in y]
    return torch.stack(rows) > 0


# --- causality --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kernel", "layers"), [(3, 8), (5, 4)])
@pytest.mark.parametrize(("height", "width"), [(7, 7), (5, 6), (1, 4)])
def test_the_gated_stack_sees_every_earlier_position_and_no_other(kernel, layers, height, width):
    stack = GatedStack(replace(SMALL, kernel_size=kernel, layers=layers))
    assert torch.equal(dependence(stack, height, width), torch.ones(height * width, height * width).tril(-1).bool())


@pytest.mark.parametrize(("kernel", "slope"), [(3, 1), (5, 2)])
def test_the_naive_stack_sees_no_later_position_and_has_a_blind_spot(kernel, slope):
    sees = dependence(MaskedStack(replace(SMALL, kernel_size=kernel, layers=14)), 7, 7)
    expected = torch.zeros(7, 7, 7, 7, dtype=torch.bool)
    for i, j, k, m in itertools.product(range(7), repeat=4):
        expected[i, j, k, m] = (k == i and m < j) or (k < i and m - j <= slope * (i - k))
    assert torch.equal(sees, expected.view(49, 49))


@pytest.mark.parametrize(("layers", "enough"), [(2, False), (5, False), (6, True)])
def test_the_gated_stack_reaches_one_position_per_layer(layers, enough):
    sees = dependence(GatedStack(replace(SMALL, layers=layers)), 7, 7)
    assert torch.equal(sees, torch.ones(49, 49).tril(-1).bool()) == enough
    sees = sees.view(7, 7, 7, 7)
    assert sees[6, 3, :, 3].tolist() == [5 - layers <= row < 6 for row in range(7)]
    assert sees[6, 0, 5].tolist() == [column <= layers for column in range(7)]


def test_the_naive_stack_adds_what_each_layer_makes_of_the_sum_so_far():
    x, given = torch.randn(2, 8, 4, 5), torch.randn(2, 3, 1, 1)
    stack = MaskedStack(SMALL, condition_dim=3).eval()
    assert len(stack.layers) == SMALL.layers and stack.condition.bias is None
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
    x = torch.randn(1, 2, 5, 6)
    torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight * layer.mask, layer.bias, padding=1))


@pytest.mark.parametrize(("last", "told"), [(False, [True] * 3), (True, [False, False, True])])
def test_a_map_as_condition_reaches_all_layers_or_the_last_alone(last, told):
    model, condition = prior(condition_dim=5, last_layer_only=last), torch.randn(2, 5, 4, 4)
    assert [layer.condition is not None for layer in model.stack.layers] == told
    codes = torch.randint(3, (2, 4, 4))
    assert not torch.allclose(model(codes, condition), model(codes, condition + 1))
    uniform = condition[:, :, :1, :1]
    torch.testing.assert_close(model(codes, uniform), model(codes, uniform.expand(-1, -1, 4, 4)))


# --- sampling ---------------------------------------------------------------------------------------------------------


@stacks
@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 3), (1, 3), (4, 1)])
def test_a_map_of_one_or_all_rows_and_columns_is_followed_in_drawing(stack, height, width):
    model, condition = prior(condition_dim=2, stack=stack), 3 * torch.randn(2, 2, height, width)
    drawn = model.sample(2, 4, 3, condition, temperature=1e-6)
    assert torch.equal(drawn, model(drawn, condition).argmax(1))


@torch.no_grad()
def test_the_least_that_is_possible_is_drawn_and_priced():
    assert prior(num_embeddings=1).sample(3, 2, 2).tolist() == [[[0, 0], [0, 0]]] * 3
    least = prior(num_embeddings=1, num_classes=1, hidden_dim=1, layers=1, dropout=0)
    numbers = least.training_step(torch.zeros(1, 1, 1, dtype=torch.long), torch.zeros(1, dtype=torch.long))
    assert least.summarize(numbers)["bits_per_image"] == 0


@pytest.mark.parametrize("temperature", [1e-300, 1e-5, 0.3, 1, 2.0, np.float32(2), 1e9])
def test_a_temperature_divides_the_logits_and_towards_zero_the_likeliest_takes_all(temperature):
    logits = torch.tensor([[1.0, 3.0, 2.0], [0.5, 0.1, 0.4]], requires_grad=True)
    cold = temperature < 1e-3
    sharp = F.one_hot(logits.argmax(1), 3).double()
    exact = sharp if cold else (logits.double() / float(temperature)).softmax(1)
    torch.testing.assert_close(distribution(logits, temperature), exact)
    assert not cold or distribution(torch.tensor([1e3, 999.0]), 1e-306).tolist() == [1, 0]  # beyond float64
    drawn = prior().sample(4, 3, 3, temperature=temperature)
    assert not cold or torch.equal(drawn, prior()(drawn).argmax(1))


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(1.0, [0, 1, 2, 3]), (0.96, [0, 1, 2, 3]), (0.94, [0, 1, 3]), (0.84, [1, 3]), (0.69, [1]), (1e-9, [1])],
)
def test_top_p_keeps_the_fewest_codes_that_reach_it(top_p, kept):
    p = torch.tensor([0.1, 0.7, 0.05, 0.15], dtype=torch.float64)
    q = distribution(p.log(), top_p=top_p)
    assert q.nonzero()[:, 0].tolist() == kept
    torch.testing.assert_close(q[kept], p[kept] / p[kept].sum())
    assert distribution(torch.zeros(4), top_p=0.5).tolist() == [0.5, 0.5, 0, 0]  # of equal ones the first


def test_filling_asks_for_what_is_missing_alone():
    given = torch.tensor([[[True, False], [True, True]], [[True, True], [False, True]]])
    asked, grid = [], torch.ones(2, 2, 2).long()
    filled = prior().fill(grid, given, lambda outputs, i, j: asked.append((i, j, *outputs.shape)) or torch.tensor([2]))
    assert asked == [(0, 1, 1, 3), (1, 0, 1, 3)]
    assert torch.equal(filled, torch.where(given, grid, 2)) and (grid == 1).all()  # the caller's is as it was


# --- training and devices ---------------------------------------------------------------------------------------------


def test_a_loader_of_codes_hands_out_the_models_codes_with_their_labels(digits):
    model = VQVAE(VQVAEConfig(hidden_dim=8, num_embeddings=16, embedding_dim=4, device="cpu"))
    images = digits.subset(slice(0, 70))
    test = create_code_loader(SMALL, model, images, train=False)
    codes, labels = (torch.cat(parts) for parts in zip(*test, strict=True))
    assert torch.equal(codes, collect_indices(model, [(images.floats(), images.labels)]))
    assert torch.equal(labels, images.labels)
    train = create_code_loader(SMALL, model, images)
    assert [len(x) for x, _ in train] == [32, 32] and train.shuffle and train.seed == SMALL.seed
    wide = prior(num_embeddings=16, num_classes=10)
    assert wide.training_step(*next(iter(train)))["total_loss"].isfinite()
    assert model.decode(wide.sample(2, 7, 7, labels[:2])).shape == (2, 1, 28, 28)


@pytest.fixture(scope="module")
def coder() -> VQVAE:
    """A model whose three codes lie among its vectors, so that a price makes a difference."""
    model = VQVAE(VQVAEConfig(hidden_dim=8, num_embeddings=3, embedding_dim=4, device="cpu"))
    model.initialize(torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(0)))
    return model


@stacks
@pytest.mark.parametrize("share", [0, 0.25])
@torch.no_grad()
def test_each_code_is_the_best_of_distance_and_price_given_those_before(stack, share, coder, digits):
    x, model = digits.floats(slice(0, 4)), prior(stack=stack)
    model.head[-1].weight.mul_(20)  # prices that differ
    z_e = coder.encoder(x).movedim(1, -1)  # (4, 7, 7, D)
    price = share * float((z_e - z_e.mean((0, 1, 2))).square().sum(-1).mean())
    expected = torch.zeros(4, 7, 7, dtype=torch.long)
    for i, j in itertools.product(range(7), range(7)):
        nats = -model(expected)[:, :, i, j].log_softmax(1)
        distances = (z_e[:, i, j, None] - coder.vq.codebook).square().sum(-1)
        expected[:, i, j] = (distances + price * nats).argmin(1)
    before = snapshot(coder.train())
    found = choose_codes(coder, model, x, price)
    assert torch.equal(found, expected)
    assert torch.equal(found, coder.encode(x)) == (share == 0)  # the price has decided something
    assert same_bits(coder.state_dict(), before) and coder.training


@pytest.mark.parametrize(("K", "price"), [(3, -0.1), (3, math.nan), (3, math.inf), (4, 0.1)])
def test_a_price_or_a_prior_that_does_not_fit_raises(coder, K, price):
    with pytest.raises(ValueError, match="num_embeddings = 4" if K == 4 else "price"):
        choose_codes(coder, prior(num_embeddings=K), torch.rand(1, 1, 28, 28), price)


# --- bad input --------------------------------------------------------------------------------------------------------


NO_CONDITION = [
    *(({"condition_dim": 3}, torch.zeros(shape)) for shape in [(2, 5, 1, 1), (2, 3), (1, 3, 1, 1), (2, 3, 4)]),
    *(({"condition_dim": 3, "num_classes": 4}, labels) for labels in (torch.tensor([1, 2]), None)),
]


@pytest.mark.parametrize("call", ["forward", "nats", "sample"])
@pytest.mark.parametrize(("options", "condition"), NO_CONDITION)
def test_a_condition_missing_or_wrong_raises(call, options, condition):
    arguments = (2, 3, 3) if call == "sample" else (torch.zeros(2, 3, 3, dtype=torch.long),)
    with pytest.raises((ValueError, RuntimeError), match=r"condition|[Cc]lass|one_hot"):
        getattr(prior(**options), call)(*arguments, condition)


def test_a_config_takes_numpy_numbers_and_is_frozen():
    config = PriorConfig(layers=np.int64(2), dropout=np.float32(0.5), num_classes=np.uint8(3), device="cpu")
    assert [type(getattr(config, name)) for name in ("layers", "dropout", "num_classes")] == [int, float, int]
    assert PriorConfig(**asdict(config)) == config and "device" not in config.identity()
    with pytest.raises(FrozenInstanceError):
        config.layers = 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *itertools.product(("num_embeddings", "hidden_dim", "layers", "batch_size", "num_epochs"), (0, 1.5, True)),
        *itertools.product(["num_classes"], (-1, 2.0)),
        *itertools.product(["kernel_size"], (1, 4, 3.0)),
        *itertools.product(["dropout"], (-0.1, 1, math.nan, "0.1")),
        *{"stack": "Gated", "lr": 0, "seed": -1, "schedule": "linear", "precision": "b", "device": "abacus"}.items(),
    ],
)
def test_a_bad_choice_raises_naming_field_and_value(name, value):
    with pytest.raises(ValueError, match=rf"^{name} = {value!r}[ :]"):
        PriorConfig(**{name: value})
