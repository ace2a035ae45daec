"""The training engine of the lab's page against the library: same weights, same draws, same numbers."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from project import ROOT

from vqvae_lib import VQVAE, VQVAEConfig
from vqvae_lib.config import learning_rate

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="no node on PATH: install Node.js 20 or newer")

SHAPE = {"hidden_dim": 32, "embedding_dim": 16, "num_embeddings": 64, "batch_size": 32}
RULES = {
    "gradient": {"codebook_update": "gradient", "restart_threshold": 0.0},
    "ema": {"codebook_update": "ema", "restart_threshold": 0.0},
    "restart": {"codebook_update": "ema", "restart_threshold": 0.04},
}


def node(task: str, **question: object) -> object:
    """What the engine answers."""
    command = [shutil.which("node"), "--no-warnings", ROOT / "tests" / "lab_train.mjs"]
    text = json.dumps({"task": task, **question})
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def distance(ours: list[float], theirs: torch.Tensor) -> float:
    """Largest difference relative to the largest number."""
    theirs = theirs.detach().double().flatten()
    return float((torch.tensor(ours, dtype=torch.float64) - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("init", ["uniform", "data"])
@pytest.mark.parametrize("rule", RULES)
def test_twenty_steps_are_the_library_s(rule, init, digits, tmp_path, monkeypatch):
    steps = 20
    config = VQVAEConfig(**SHAPE, **RULES[rule], init=init, device="cpu", precision="float32")
    torch.manual_seed(0)
    model, draws = VQVAE(config).train(), []

    def draw(z):
        draws.append(torch.randperm(len(z))[: config.num_embeddings].tolist())
        return z[draws[-1]]

    monkeypatch.setattr(model.vq, "_draw", draw)
    weights = {name: value.flatten().tolist() for name, value in model.state_dict().items() if "vq.u" not in name}
    optimizer = torch.optim.Adam(model.parameters())
    chosen = torch.randint(len(digits), (steps, config.batch_size))
    images = digits.images[chosen]
    losses, gradients = [], {}
    for step in range(steps):
        x = images[step].float() / 255
        if step == 0:
            model.initialize(x)
        results = model.training_step(x)
        optimizer.zero_grad()
        results["total_loss"].backward()
        gradients = gradients or {name: value.grad.clone() for name, value in model.named_parameters()}
        optimizer.param_groups[0]["lr"] = learning_rate(step / steps, config.lr, config.schedule)
        optimizer.step()
        losses.append({name: float(value) for name, value in results.items() if value.dim() == 0})
    (tmp_path / "images").write_bytes(images.numpy().tobytes())
    settings = {**SHAPE, **RULES[rule], "init": init, "steps": steps}
    answer = node("parity", settings=settings, weights=weights, images=str(tmp_path / "images"), draws=draws)
    far = {name: distance(answer["gradients"][name], value) for name, value in gradients.items()}
    print(rule, init, len(draws), far)
    rel = [max(abs(a[n] / b[n] - 1) for n in b) for a, b in zip(answer["losses"], losses, strict=True)]
    print(rel, distance(answer["usage"], model.vq.usage))
    assert max(far.values()) < 1e-4
    assert max(rel) < 1e-3
    assert answer["left"] == 0
