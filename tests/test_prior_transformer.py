"""The transformer prior: attention, causality at every position, the cache, grids. See also ``test_priors``."""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict

import pytest
import torch
from small_priors import TRANSFORMER, codes_for, prior
from torch import Tensor

from vqvae_lib import VQVAE, VQVAEConfig, create_code_loader
from vqvae_lib.transformer import Block, TransformerConfig

depths = pytest.mark.parametrize("depth", [1, 2])


# --- mathematics ------------------------------------------------------------------------------------------------------


@depths
@pytest.mark.parametrize(("height", "width"), [(4, 5), (3, 4), (1, 3), (2, 1)])
def test_each_code_is_predicted_from_all_earlier_ones_and_no_other(depth, height, width):
    model, embedded = prior("transformer", depth=depth).double(), []
    model.embed.register_forward_hook(lambda _, args, out: embedded.append(out))
    logits = model(codes_for(model, 1, height, width)).flatten(2).sum((0, 1))
    T = height * width * depth
    assert logits.shape == (T,)
    weights = torch.arange(1.0, model.config.num_embeddings + 1)[:, None]
    outputs = (model(codes_for(model, 1, height, width)).flatten(2)[0] * weights).sum(0)
    rows = [torch.autograd.grad(one, embedded[-1], retain_graph=True)[0][0].abs().sum(-1) for one in outputs]
    assert torch.equal(torch.stack(rows) > 0, torch.ones(T, T).tril(-1).bool())


def test_a_block_is_causal_attention_and_two_layers_written_out():
    block, x = Block(TRANSFORMER).double().eval(), torch.randn(2, 5, 8, dtype=torch.float64)
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
    model = prior("transformer", num_embeddings=2, depth=2)
    model.embed.weight.zero_()
    model.heads[1].load_state_dict(model.heads[0].state_dict())
    outputs = model(torch.zeros(1, 4, 5, 2, dtype=torch.long))[0, 0].flatten()
    assert len(outputs.unique()) == 40


@depths
@torch.no_grad()
def test_outputs_with_and_without_the_cache_are_equal(depth):
    model, outputs = prior("transformer", depth=depth), []
    codes = codes_for(model)

    def draw(logits: Tensor, i: int, j: int) -> Tensor:
        outputs.append((logits, i, j))
        return codes[:, i, j].view(len(codes), depth)[:, (len(outputs) - 1) % depth]

    assert torch.equal(model.fill(torch.zeros_like(codes), torch.zeros_like(codes).bool(), draw), codes)
    torch.testing.assert_close(torch.stack([one for one, _, _ in outputs], -1), model(codes).flatten(2))
    places = [place for place in itertools.product(range(3), range(4)) for _ in range(depth)]
    assert [(i, j) for _, i, j in outputs] == places


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
    coder = prior("transformer", rows=7, columns=7, **own)
    codes, labels = next(iter(create_code_loader(coder.config, model, images)))
    assert codes.shape == (32, 7, 7, *coder.stacked)
    assert coder.training_step(codes, labels)["total_loss"].isfinite()
    assert model.decode(coder.sample(2, 7, 7, labels[:2])).shape == (2, 1, 28, 28)


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["forward", "nats", "training_step", "complete"])
@pytest.mark.parametrize(
    ("depth", "shape"),
    [(1, (1, 5, 5)), (1, (1, 4, 6)), (1, (2, 3, 4, 1)), (2, (2, 3, 4)), (2, (2, 3, 4, 3)), (2, (2, 3))],
)
def test_codes_of_another_depth_or_beyond_its_rows_and_columns_raise(call, depth, shape):
    model, codes = prior("transformer", depth=depth), torch.zeros(shape, dtype=torch.long)
    given = [torch.ones_like(codes, dtype=torch.bool)] * (call == "complete")
    with pytest.raises(ValueError, match="codes"):
        getattr(model, call)(codes, *given)


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
    assert TransformerConfig(**asdict(TRANSFORMER)) == TRANSFORMER and "device" not in TRANSFORMER.identity()
