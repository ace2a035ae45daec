"""Newer quantizers: their mathematics, then vector-quantize-pytorch, then behavior, then faults."""

from __future__ import annotations

import copy
import itertools
import json
import math
import sys
from dataclasses import asdict, fields, replace

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
import vector_quantize_pytorch as peer
from helpers import HALVES, brute_force, no_looks, normal, placed, same_bits, snapshot
from torch import Tensor
from torch.multiprocessing import start_processes

from vqvae_lib import FSQ, LFQ, GroupedVQ, ResidualVQ, RotationTrick, SimVQ, VQVAEConfig, VQVAETrainer, seeded
from vqvae_lib.config import LATER
from vqvae_lib.model import VQVAE, make_quantizer
from vqvae_lib.quantizer import EMAVectorQuantizer, VectorQuantizer
from vqvae_lib.vae import VAEConfig

D, K = 4, 16
SMALL = VQVAEConfig(hidden_dim=8, num_embeddings=K, embedding_dim=D, batch_size=32, device="cpu", precision="float32")
CHOICES = {
    "fsq": {"quantizer": "fsq", "levels": (3, 4, 5, 3), "num_embeddings": 180},
    "lfq": {"quantizer": "lfq", "entropy_temperature": 1.0},
    "residual": {"quantizer": "residual", "num_codebooks": 3},
    "shared": {"quantizer": "residual", "num_codebooks": 3, "shared_codebook": True, "codebook_update": "gradient"},
    "grouped": {"quantizer": "grouped", "num_codebooks": 2},
    "simvq": {"quantizer": "simvq", "codebook_update": "gradient"},
    "rotation": {"estimator": "rotation"},
}
CONFIGS = {name: replace(SMALL, **choices) for name, choices in CHOICES.items()}
every = pytest.mark.parametrize("name", CHOICES)
moving = pytest.mark.parametrize("name", ["residual", "shared", "grouped", "simvq", "rotation"])


def started(name: str, **changes: object) -> torch.nn.Module:
    """A quantizer in training that has started and seen some batches."""
    vq = make_quantizer(replace(CONFIGS[name], **changes))
    with seeded(1):
        vq.initialize(normal(64, D))
        for step in range(3):
            vq(normal(64, D, seed=step))
    return vq


def passed(
    quantizer: torch.nn.Module, z: Tensor, g: Tensor, **options: object
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Code, indices, loss (of stages their sum), and z's gradient of (z_q * g).sum() + loss."""
    z = z.clone().requires_grad_()
    result = dict(zip("abc", quantizer(z, **options), strict=False))
    z_q, rest = result.pop("a"), result.values()
    indices = next(value for value in rest if not value.is_floating_point())
    loss = sum(value.sum() for value in rest if value.is_floating_point())
    ((z_q * g).sum() + loss).backward()
    return z_q.detach(), indices, torch.as_tensor(loss).detach(), z.grad


def assert_equal(ours: tuple, theirs: tuple) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.shape == other.shape
        torch.testing.assert_close(mine, other.to(mine.dtype), rtol=0, atol=1e-5)


# --- mathematics ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [(3,), (4, 3), (8, 5, 5), (7, 4, 3, 5)])
def test_fsq_is_the_nearest_of_all_levels_and_its_gradient_that_of_the_bound(levels):
    fsq, z = FSQ(levels), 2 * normal(500, len(levels), dtype=torch.float64).requires_grad_()
    z.retain_grad()
    g = normal(500, len(levels), seed=1, dtype=torch.float64)
    expected, slope, number, step = [], [], 0, 1
    for L, column in zip(levels, z.detach().T, strict=True):
        h, o = (L - 1) * 1.001 / 2, 0 if L % 2 else 0.5
        t = torch.tanh(column + math.atanh(o / h))
        level = torch.arange(L, dtype=torch.float64) - L // 2
        nearest = ((h * t - o)[:, None] - level).abs().argmin(1)
        expected.append(level[nearest] / (L // 2))
        slope.append(h * (1 - t.square()) / (L // 2))
        number, step = number + step * nearest, step * L
    out = fsq(z)
    torch.testing.assert_close(out.z_q, torch.stack(expected, 1))
    assert torch.equal(out.indices, number) and out.loss == 0
    out.z_q.backward(g)
    torch.testing.assert_close(z.grad, g * torch.stack(slope, 1))
    codes = fsq.lookup(torch.arange(fsq.num_embeddings))
    assert len(codes.unique(dim=0)) == fsq.num_embeddings == math.prod(levels)
    assert codes.min() == -1 and codes.max() == (1 if any(L % 2 for L in levels) else 1 - 2 / max(levels))
    far = torch.tensor(list(itertools.product([-99.0, 0, 99.0], repeat=len(levels))))
    assert (fsq(far).z_q[len(far) // 2] == 0).all()  # zeros are a code
    assert {0, fsq.num_embeddings - 1} <= {*fsq.assign(far).tolist()}


@pytest.mark.parametrize("d", [1, 2, 3, 5])
@pytest.mark.parametrize("tau", [0.1, 1.0, 5.0])
def test_lfq_entropies_are_those_of_the_softmax_over_all_codes(d, tau):
    lfq, z = LFQ(d, 0.3, 0.7, tau), normal(2, d, 4, 5, dtype=torch.float64).requires_grad_()
    rows, every_code = z.movedim(1, -1).flatten(0, -2), lfq.lookup(torch.arange(2**d)).double()
    p = (-(rows[:, None] - every_code).square().sum(-1) / tau).softmax(1)
    each, mean = torch.special.entr(p).sum(1).mean(), torch.special.entr(p.mean(0)).sum()
    torch.testing.assert_close(torch.stack(lfq.entropies(rows)), torch.stack([each, mean]))
    out = lfq(z)
    assert torch.equal(out.z_q, torch.where(z > 0, 1.0, -1.0).double())
    assert torch.equal(out.indices, brute_force(rows, every_code).view(2, 4, 5))
    expected = 0.3 * (z - out.z_q.detach()).square().mean() + 0.7 * (each - mean)
    torch.testing.assert_close(out.loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, z, retain_graph=True)[0] for loss in (out.loss, expected)))
    assert torch.equal(torch.autograd.grad(out.z_q.sum(), z)[0], torch.ones_like(z))


def test_lfq_takes_zero_as_minus_one_and_certain_choices_have_finite_gradients():
    lfq, z = LFQ(3), torch.tensor([[0.0, -0.0, 1e-9], [900.0, -900.0, 0.5]], requires_grad=True)
    out = lfq(z)
    assert out.z_q.tolist() == [[-1, -1, 1], [1, -1, 1]] and out.indices.tolist() == [4, 5]
    out.loss.backward()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("shared", [False, True])
def test_residual_vq_is_the_sum_of_its_stages_and_passes_the_gradient_once(shared):
    books = [normal(6, D, seed=1, dtype=torch.float64) / 2**i for i in range(3)]
    one = placed(VectorQuantizer, books[0], commitment_cost=0.3)
    stages = [one] * 3 if shared else [placed(VectorQuantizer, book, commitment_cost=0.3) for book in books]
    z, g = (normal(5, D, 2, 3, seed=seed, dtype=torch.float64) for seed in (5, 6))
    alone, indices, pull, loss, rest = copy.deepcopy(stages), [], 0, 0, z
    for stage in alone:
        rest = rest.detach().requires_grad_()
        part = stage(rest)
        part.loss.backward()
        loss, pull, rest = loss + part.loss, pull + rest.grad, rest - part.z_q.detach()
        indices.append(part.indices)
    found, k, their_loss, gradient = passed(vq := ResidualVQ(stages), z, g)
    torch.testing.assert_close(found, z - rest)
    assert torch.equal(k, torch.stack(indices, -1)) and torch.equal(vq.lookup(k), vq(z).z_q)
    torch.testing.assert_close(their_loss, loss.detach())
    torch.testing.assert_close(gradient, g + pull)
    for mine, other in zip(stages, alone, strict=True):
        torch.testing.assert_close(mine.codebook.grad, other.codebook.grad)
    assert (rest.square().mean() < z.square().mean()) or shared


def test_stages_move_as_quantizers_of_what_is_left_and_a_shared_one_by_all_vectors_at_once():
    books = [normal(8, D, seed=seed) for seed in range(2)]
    own, alone = ([placed(EMAVectorQuantizer, book) for book in books] for _ in range(2))
    z = normal(64, D, seed=7)
    ResidualVQ(own)(z)
    first = alone[0](z).z_q
    alone[1](z - first)
    assert same_bits(*([snapshot(part) for part in parts] for parts in (own, alone)))
    one, other = (placed(EMAVectorQuantizer, books[0]) for _ in range(2))
    ResidualVQ([one, one])(z)
    other(torch.cat([z, z - first]))
    assert same_bits(snapshot(one), snapshot(other))


def rotation(z: Tensor, e: Tensor) -> Tensor:
    """The matrix that turns z's direction into e's within their plane: (D, D)."""
    v, u = z / z.norm(), e / e.norm()
    w = (u + v) / (u + v).norm()
    return torch.eye(len(z), dtype=z.dtype) - 2 * torch.outer(w, w) + 2 * torch.outer(u, v)


def test_the_rotation_trick_turns_gradients_as_vectors_into_codes():
    z, e, g = (normal(20, D, seed=seed, dtype=torch.float64) for seed in range(3))
    z.requires_grad_()
    out = RotationTrick.apply(z, e)
    assert torch.equal(out, e)
    out.backward(g)
    scale = (e.norm(dim=1) / z.detach().norm(dim=1))[:, None]
    for one, code, up, down, s in zip(z.detach(), e, g, z.grad, scale, strict=True):
        R = rotation(one, code)
        torch.testing.assert_close(R @ R.T, torch.eye(D, dtype=torch.float64))
        torch.testing.assert_close(s * R @ one, code)
        torch.testing.assert_close(down, s * R.T @ up)
    torch.testing.assert_close(z.grad.norm(dim=1), g.norm(dim=1) * scale[:, 0])
    angles = F.cosine_similarity(z.grad, z.detach()), F.cosine_similarity(g, e)
    torch.testing.assert_close(*angles)  # between gradient and vector as between gradient and code


def test_rotations_at_their_limits_are_finite():
    z = torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    e = torch.tensor([[1.0, 0.0], [0.0, 0.0], [-3.0, -4.0]])  # a zero vector, a zero code, and opposites
    RotationTrick.apply(z, e).backward(torch.ones(3, 2))
    assert z.grad.isfinite().all() and not z.grad[1].any()
    assert float(z.grad[2].norm()) == pytest.approx(2**0.5)


@pytest.mark.parametrize("name", ["vq", "residual", "grouped", "simvq"])
def test_the_rotation_trick_serves_all_that_have_codebooks(name):
    choices = CHOICES.get(name, {}) | {"estimator": "rotation", "commitment_cost": 0.0}
    vq, plain = (make_quantizer(replace(SMALL, **choices | other)) for other in ({}, {"estimator": "straight_through"}))
    z, g = normal(30, D), normal(30, D, seed=1)
    results = [passed(one.eval(), z, g) for one in (vq, plain)]
    (z_q, k, _, down), (same_code, same_k, _, straight) = results
    assert torch.equal(z_q, same_code) and torch.equal(k, same_k) and not torch.allclose(down, straight)
    parts = [slice(0, 2), slice(2, 4)] if name == "grouped" else [slice(0, D)]
    for part in parts:
        z_part = z[:, part].clone().requires_grad_()
        RotationTrick.apply(z_part, z_q[:, part]).backward(g[:, part])
        torch.testing.assert_close(down[:, part], z_part.grad)


def test_simvq_moves_all_codes_by_the_gradient_of_one_linear_layer():
    vq, z = SimVQ(K, D, 0.25).double(), normal(50, D, dtype=torch.float64).requires_grad_()
    C, W = vq.basis.clone(), vq.weight.detach().clone()
    codes = C @ W.T
    k = brute_force(z, codes)
    out = vq(z)
    assert torch.equal(out.indices, k)
    torch.testing.assert_close(vq.codebook.detach(), codes)
    torch.testing.assert_close(out.z_q, codes[k])
    torch.testing.assert_close(out.loss, 1.25 * (codes[k] - z).square().mean())
    out.loss.backward()
    difference = codes[k] - z.detach()
    torch.testing.assert_close(vq.weight.grad, 2 * difference.T @ C[k] / z.numel())
    torch.testing.assert_close(z.grad, -2 * 0.25 * difference / z.numel())
    vq(z[:1].detach()).loss.backward()
    torch.optim.SGD([vq.weight], lr=0.1).step()
    assert (vq.codebook != codes).any(1).all() and torch.equal(vq.basis, C)
    assert float(SimVQ(4096, 16).basis.square().sum(1).mean()) == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("kind", [VectorQuantizer, EMAVectorQuantizer])
def test_grouped_vq_is_a_quantizer_for_each_group(kind):
    groups = [placed(kind, normal(6, 2, seed=seed)) for seed in range(3)]
    alone = copy.deepcopy(groups)
    z, g = normal(4, 6, 3, 5), normal(4, 6, 3, 5, seed=1)
    z_q, k, loss, gradient = passed(GroupedVQ(groups), z, g)
    found = [passed(part, *pair) for part, *pair in zip(alone, z.chunk(3, 1), (3 * g).chunk(3, 1), strict=True)]
    assert torch.equal(z_q, torch.cat([one[0] for one in found], 1))
    assert torch.equal(k, torch.stack([one[1] for one in found], -1))
    torch.testing.assert_close(loss, sum(one[2] for one in found) / 3)
    torch.testing.assert_close(gradient, torch.cat([one[3] for one in found], 1) / 3)
    assert same_bits(*([snapshot(part) for part in parts] for parts in (groups, alone)))


# --- vector-quantize-pytorch ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [(8, 5, 5, 3), (3, 4, 7, 6)])
def test_fsq_equals_the_peers(levels):
    z, g = 2 * normal(3, D, 4, 5), normal(3, D, 4, 5, seed=1)
    assert_equal(passed(FSQ(levels), z, g), passed(peer.FSQ(list(levels)), z, g))


def test_lfq_equals_the_peers_but_for_the_order_of_its_bits():
    z, g = normal(6, D, 4, 5), normal(6, D, 4, 5, seed=1)
    theirs = peer.LFQ(dim=D, commitment_loss_weight=0.25, entropy_loss_weight=0.1)
    ours = passed(LFQ(D, 0.25, 0.1, 1.0), z, g)
    mirrored = [x.flip(1) if x.dim() == 4 else x for x in passed(theirs, z.flip(1), g.flip(1), inv_temperature=1.0)]
    assert_equal(ours, mirrored)


def peers(kind: type, parts: list, **options: object) -> torch.nn.Module:
    """One of the peer's quantizers, with our codebooks in its own."""
    options = {"accept_image_fmap": True, "freeze_codebook": True, "commitment_weight": 0.25} | options
    made = kind(dim=D, codebook_size=K, **options)
    theirs = [module._codebook for module in made.modules() if isinstance(module, peer.VectorQuantize)]
    books = torch.stack([part.codebook.detach() for part in parts])
    if len(theirs) == 1:
        theirs[0].embed.data.copy_(books)
    else:
        for codebook, book in zip(theirs, books, strict=True):
            codebook.embed.data.copy_(book[None])
    return made


@pytest.mark.parametrize("estimator", ["straight_through", "rotation"])
def test_a_codebook_with_either_estimator_equals_the_peers(estimator):
    z, g = normal(3, D, 4, 5), normal(3, D, 4, 5, seed=1)
    vq = make_quantizer(replace(SMALL, estimator=estimator))
    theirs = peers(peer.VectorQuantize, [vq], rotation_trick=estimator == "rotation")
    vq.freeze()
    assert_equal(passed(vq, z, g), passed(theirs, z, g))


@pytest.mark.parametrize("shared", [False, True])
def test_residual_vq_equals_the_peers_which_passes_the_gradient_once_per_stage(shared):
    z, g = normal(60, D), normal(60, D, seed=1)
    vq = make_quantizer(replace(SMALL, quantizer="residual", num_codebooks=3, shared_codebook=shared))
    vq.freeze()
    options = {"num_quantizers": 3, "shared_codebook": shared, "rotation_trick": False}
    theirs = peers(peer.ResidualVQ, [*vq.parts], accept_image_fmap=False, **options)
    sequence = passed(theirs, z[None], g[None], freeze_codebook=True)  # its stages of images fail (1.32)
    assert_equal(passed(vq, z, 3 * g), [x.squeeze(0) for x in sequence])


def test_grouped_vq_equals_the_peers_heads():
    z, g = normal(3, D, 4, 5), normal(3, D, 4, 5, seed=1)
    vq = make_quantizer(CONFIGS["grouped"])
    vq.freeze()
    options = {"heads": 2, "codebook_dim": 2, "separate_codebook_per_head": True, "rotation_trick": False}
    assert_equal(passed(vq, z, g), passed(peers(peer.VectorQuantize, [*vq.parts], **options), z, g))


@pytest.mark.parametrize("estimator", ["straight_through", "rotation"])
def test_simvq_equals_the_peers_and_so_does_its_layers_gradient(estimator):
    z, g = normal(3, D, 4, 5), normal(3, D, 4, 5, seed=1)
    vq = make_quantizer(replace(CONFIGS["simvq"], estimator=estimator))
    theirs = peer.SimVQ(D, K, channel_first=True, rotation_trick=estimator == "rotation")
    theirs.frozen_codebook.copy_(vq.basis)
    theirs.code_transform.weight.data.copy_(vq.weight)
    assert_equal(passed(vq, z, g), passed(theirs, z, g))
    assert_equal((vq.weight.grad,), (theirs.code_transform.weight.grad,))


# --- behavior ---------------------------------------------------------------------------------------------------------


@every
def test_a_model_of_each_kind_trains_and_decodes_what_it_encodes_also_from_a_file(name, digits, tmp_path):
    config = replace(CONFIGS[name], num_epochs=1)
    trainer = VQVAETrainer(config)
    images, labels = digits.floats(slice(0, 64)), digits.labels[:64]
    first = trainer.evaluate([(images, labels)])
    trainer.fit([(images, labels)], steps=10, window=5)
    last = trainer.evaluate([(images, labels)])
    assert last["recon_loss"] < first["recon_loss"]
    assert 1 <= last["perplexity"] <= last["active_codes"] <= config.num_embeddings
    x_recon, indices = trainer.reconstruct(images)
    again = VQVAETrainer.from_checkpoint(trainer.save(tmp_path / "model.pt"), "cpu")
    assert again.config == config and same_bits(snapshot(again.model), snapshot(trainer.model))
    model = trainer.model.eval()
    assert torch.equal(model.encode(images), indices)
    with torch.no_grad():
        assert torch.equal(model.decode(indices), x_recon)
    stacked = (config.num_codebooks,) if config.num_codebooks > 1 else ()
    assert indices.shape == (64, 7, 7, *stacked)
    for wrong in (indices[0], indices[..., None]):
        with pytest.raises(ValueError, match="indices"):
            model.decode(wrong)


@every
@pytest.mark.parametrize("space", [(), (3,), (1, 1), (2, 3, 4)])
def test_any_number_of_spatial_dimensions(name, space):
    vq, z = started(name).eval(), normal(5, D, *space).requires_grad_()
    out = vq(z)
    assert out.z_q.shape == z.shape and out.loss.shape == () and out.indices.dtype == torch.int64
    assert out.indices.shape[: z.dim() - 1] == (5, *space)
    assert torch.equal(vq.lookup(out.indices), out.z_q)
    assert torch.equal(vq.assign(z), out.indices)
    assert torch.equal(vq.lookup(out.indices.to(torch.int16).numpy()), out.z_q)
    out.z_q.sum().backward()
    torch.relu_(out.z_q.detach())  # may be changed in place
    assert z.grad.abs().sum() > 0


@every
def test_evaluation_and_looking_up_move_nothing_and_draw_nothing(name):
    vq, z = started(name), 5 + normal(64, D)
    before, random = snapshot(vq), torch.get_rng_state()
    indices = vq.assign(z)
    vq.lookup(indices)
    assert torch.equal(vq.eval()(z).indices, indices)
    assert same_bits(vq.state_dict(), before) and torch.equal(torch.get_rng_state(), random)


@moving
def test_a_frozen_one_stands_still_and_thaws(name):
    vq = started(name)
    weights = [*vq.parameters()] or [torch.zeros(1)]
    optimizer = torch.optim.Adam(weights)
    for frozen in (False, True, False):
        vq.freeze(frozen)
        assert vq.frozen == frozen
        before = snapshot(vq)
        for step in range(3):
            z = (9 + normal(64, D, seed=step)).requires_grad_()
            out = vq(z)
            (out.loss + out.z_q.sum()).backward()
            assert z.grad.abs().sum() > 0
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
        assert same_bits(vq.state_dict(), before) == frozen


@every
@pytest.mark.parametrize("way", ["state_dict", "deepcopy", "meta"])
def test_all_state_travels_and_training_goes_on_to_the_same_bits(name, way):
    vq = started(name)
    assert all(value.is_contiguous() for value in vq.state_dict().values())
    if way == "deepcopy":
        other = copy.deepcopy(vq)
    else:
        with torch.device("meta" if way == "meta" else "cpu"):
            other = make_quantizer(replace(CONFIGS[name], seed=3))
            assert way != "meta" or other(torch.zeros(8, D)).z_q.shape == (8, D)
        other.load_state_dict(snapshot(vq), assign=way == "meta")
    for one in (vq, other):
        with seeded(1):
            for step in range(5, 8):
                one(normal(64, D, seed=step))
    assert same_bits(snapshot(vq), snapshot(other))


@every
def test_the_seed_makes_it_and_the_callers_generator_is_left_alone(name):
    before = torch.get_rng_state()
    one, same, other = (make_quantizer(replace(CONFIGS[name], seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert same_bits(snapshot(one), snapshot(same))
    assert same_bits(snapshot(one), snapshot(other)) == (name in {"fsq", "lfq"})
    if name in {"residual", "grouped"}:
        assert not torch.equal(one.parts[0].codebook, one.parts[1].codebook)


@every
@pytest.mark.parametrize("training", [True, False])
def test_inside_autocast_it_stays_in_float32(name, training):
    vq, other = started(name).train(training), started(name).train(training)
    z = normal(512, D).bfloat16()
    expected = other(z.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = vq(z.requires_grad_())
        assert torch.equal(started(name).assign(z), expected.indices)
        assert vq.lookup(out.indices).dtype == torch.float32
    assert out.z_q.dtype == out.loss.dtype == torch.float32
    assert torch.equal(out.indices, expected.indices) and torch.equal(out.loss, expected.loss)
    (out.loss + out.z_q.sum()).backward()
    assert z.grad.dtype == torch.bfloat16 and z.grad.isfinite().all()
    assert same_bits(snapshot(vq), snapshot(other))


@every
@pytest.mark.parametrize("dtype", [torch.float64, *HALVES])
def test_a_module_of_another_dtype_works_and_half_precision_keeps_its_state(name, dtype):
    vq = started(name).to(dtype)
    z = normal(64, D, 3).to(dtype).requires_grad_()
    out = vq(z)
    (out.loss + out.z_q.sum()).backward()
    assert out.z_q.dtype == torch.promote_types(dtype, torch.float32) and z.grad.isfinite().all()
    floats = {value.dtype for value in vq.state_dict().values() if value.is_floating_point()}
    assert floats <= {torch.promote_types(dtype, torch.float32)}


@every
def test_training_steps_never_wait_for_the_device(name, monkeypatch, digits):
    model, images = VQVAE(CONFIGS[name]), digits.floats(slice(0, 16))
    model.initialize(images)
    for module in ("_util", "lookup", "model", "quantizer", "newer"):
        monkeypatch.setattr(f"vqvae_lib.{module}.can_look", lambda tensor: False)
    with no_looks():
        model.training_step(images)["total_loss"].backward()
        model.decode(model.encode(images))
    assert all(weight.grad.any() for weight in model.encoder.parameters())


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(torch.compiler, "is_exporting"), reason="batches of any size: from torch 2.7 on")
@pytest.mark.parametrize("name", ["lfq", "shared"])
def test_it_can_be_exported_for_batches_of_any_size(name):
    vq, z = started(name).eval(), normal(6, D, 2)
    exported = torch.export.export(vq, (z,), dynamic_shapes=({0: torch.export.Dim("batch", max=99)},)).module()
    for x in (z, z[:1]):
        torch.testing.assert_close(tuple(exported(x)), tuple(vq(x)))


def test_a_shared_codebook_starts_from_the_vectors_of_all_stages():
    vq, z = started("shared"), normal(400, D)
    fresh, other = make_quantizer(CONFIGS["shared"]), make_quantizer(CONFIGS["residual"])
    with seeded(0):
        fresh.initialize(z)
        other.initialize(z)
    assert fresh.parts[0].usage.sum() == 3 * 400 and fresh.parts[0] is fresh.parts[2]
    errors = [float((one.eval()(z).z_q - z).square().mean()) for one in (fresh, other)]
    assert errors[0] < 0.3 and errors[1] < 0.1  # the residuals find codes too
    before = snapshot(vq)
    vq.initialize(z)
    assert same_bits(vq.state_dict(), before)  # it starts once


def worker(rank: int, folder: str) -> None:
    """One of two processes, each with half of a batch."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save(follow(rank, 2), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def follow(rank: int, count: int) -> dict[str, Tensor]:
    """LFQ's gradient, and stages that have moved and restarted codes, for a share of each batch."""
    lfq, stages = LFQ(D, temperature=1.0).double(), make_quantizer(replace(CONFIGS["shared"], codebook_update="ema"))
    found = {}
    for part in (lfq, *stages.modules()):
        part.distributed = count > 1
    z = normal(64, D, dtype=torch.float64).chunk(count)[rank].clone().requires_grad_()
    lfq(z).loss.backward()
    with seeded(rank):
        stages.initialize(z.detach().float())
        for step in range(6):
            stages((step + normal(64, D, seed=step)).chunk(count)[rank])
    return found | {"gradient": z.grad / count, "usage": stages.parts[0].usage}


def test_two_processes_follow_one(tmp_path):
    start = "fork" if sys.platform == "linux" else "spawn"
    start_processes(worker, (str(tmp_path),), nprocs=2, start_method=start)
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    alone = follow(0, 1)
    torch.testing.assert_close(torch.cat([one["gradient"], other["gradient"]]), alone["gradient"])
    assert torch.equal(one["usage"], other["usage"]) and one["usage"].sum() > 150


# --- configuration and faults -----------------------------------------------------------------------------------------


def test_the_identity_of_a_plain_run_is_what_it_was_before_the_newer_settings():
    for config in (VQVAEConfig(), VAEConfig(), replace(SMALL, codebook_update="gradient", restart_threshold=0)):
        assert {*config.identity()} == {field.name for field in fields(config)} - {*LATER} - {"device"}
    deep = replace(SMALL, residual_layers=2, downsampling=8)
    for config in (deep, *CONFIGS.values()):
        changed = {name for name in LATER if getattr(config, name) != getattr(VQVAEConfig, name)}
        assert changed and changed == {*config.identity()} & {*LATER}
        assert json.loads(json.dumps(config.identity())) == config.identity()
        assert VQVAEConfig(**config.identity() | {"device": "cpu"}) == VQVAEConfig(**asdict(config)) == config


@pytest.mark.parametrize(
    ("field", "choices"),
    [
        ("quantizer", {"quantizer": "rvq"}),
        ("estimator", {"estimator": "rotate"}),
        *(("estimator", CHOICES[name] | {"estimator": "rotation"}) for name in ("fsq", "lfq")),
        *(
            ("levels", {"levels": levels})
            for levels in [(4, 4), 4, "44", (2, 8, 4, 4), (1001, 3, 3, 3), (3.0, 4, 5, 3)]
        ),
        *(("levels", CHOICES["fsq"] | {"levels": levels}) for levels in [(), (3, 4, 5), (3, 4, 5, 4), (180,)]),
        ("num_embeddings", CHOICES["lfq"] | {"num_embeddings": 15}),
        *(("entropy_cost", {"entropy_cost": cost}) for cost in (0.2, -1, math.nan)),
        *(("entropy_temperature", CHOICES["lfq"] | {"entropy_temperature": tau}) for tau in (0, -1.0, "1")),
        *(("num_codebooks", {"quantizer": kind, "num_codebooks": 2}) for kind in ("vq", "lfq")),
        *(("num_codebooks", {"quantizer": "grouped", "num_codebooks": n}) for n in (3, 0, 1.5, True)),
        *(("shared_codebook", {"quantizer": kind, "shared_codebook": True}) for kind in ("vq", "grouped")),
        ("shared_codebook", {"quantizer": "residual", "shared_codebook": "yes"}),
        ("codebook_update", {"quantizer": "simvq"}),
    ],
    ids=str,
)
def test_what_does_not_go_together_raises_naming_the_field(field, choices):
    with pytest.raises(ValueError, match=f"^{field} = "):
        replace(SMALL, **choices)


def test_a_vae_takes_a_plain_codebook_alone():
    with pytest.raises(ValueError, match=r"^quantizer = "):
        VAEConfig(quantizer="simvq", codebook_update="gradient")
    with pytest.raises(ValueError, match=r"^estimator = "):
        VAEConfig(estimator="rotation")


@every
@pytest.mark.parametrize("method", ["__call__", "initialize", "assign"])
@pytest.mark.parametrize("wrong", [(2, 5, 3, 3), (4,), (0, D, 3, 3), (2, D, 0), torch.int64, math.nan, math.inf])
def test_input_that_is_none_raises_and_moves_nothing(name, wrong, method):
    vq = make_quantizer(CONFIGS[name])
    before = snapshot(vq)
    z = torch.zeros(wrong if isinstance(wrong, tuple) else (40, D))
    z = z.to(wrong) if isinstance(wrong, torch.dtype) else z
    if isinstance(wrong, float):
        z[7, 2] = wrong
    with pytest.raises(ValueError, match=r"z_e|NaN"):
        getattr(vq, method)(z)
    assert same_bits(vq.state_dict(), before)


@every
def test_indices_that_are_none_raise(name):
    vq = started(name)
    good = vq.assign(normal(3, D, 2))
    for wrong in (good.float(), good.bool(), good - 999, good + 999):
        with pytest.raises(ValueError, match="indices"):
            vq.lookup(wrong)
    if CONFIGS[name].num_codebooks > 1:
        for wrong in (good[..., :1], good[0, 0, 0], good[..., None]):
            with pytest.raises(ValueError, match="shape of indices"):
                vq.lookup(wrong)


def test_arguments_that_do_not_fit_raise_and_files_of_other_levels_too():
    for bad in ({"commitment_cost": -1}, {"entropy_cost": math.inf}, {"temperature": 0}, {"embedding_dim": 25}):
        with pytest.raises(ValueError, match=f"^{next(iter(bad))} = "):
            LFQ(**{"embedding_dim": 3} | bad)
    with pytest.raises(ValueError, match=r"^levels = "):
        FSQ(())
    for several in (ResidualVQ, GroupedVQ):
        for parts in ([], [SimVQ(4, 2), SimVQ(4, 3)], [SimVQ(4, 2), SimVQ(5, 2)]):
            with pytest.raises(ValueError, match="parts"):
                several(parts)
    with pytest.raises(ValueError, match="levels"):
        FSQ((3, 4)).load_state_dict(FSQ((4, 3)).state_dict())
