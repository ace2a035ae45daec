"""The training engine of the lab's page against the library: same weights, same draws, same numbers."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace

import notebooks
import numpy as np
import pytest
import torch
from docutils.nodes import make_id
from helpers import HAS_MNIST, needs_mnist
from PIL import Image
from project import ROOT

import vqvae_lib as lib
from vqvae_book.lab import files, train_sheet
from vqvae_lib import VQVAE, VQVAEConfig
from vqvae_lib._util import eval_mode
from vqvae_lib.config import learning_rate
from vqvae_lib.metrics import mse

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


def measured(model: VQVAE, x: torch.Tensor, step: int) -> dict[str, float]:
    """An entry of a history, as the page has it; None for what is not finite, which JSON lacks."""
    if not all(value.isfinite().all() for value in model.state_dict().values()):
        return {"step": step, "normalized_mse": None, "codes": 1, "z_length": None}
    with torch.no_grad(), eval_mode(model):
        z, out = model.encoder(x), model(x)
    error = lib.normalized_mse(mse(x, out.x_recon), float(x.double().var(correction=0)))
    length, codes = float(z.movedim(1, -1).norm(dim=-1).mean()), len(out.indices.unique())
    return {"step": step, "normalized_mse": error, "codes": codes, "z_length": length}


# From data fewer steps: there the library's own losses in float32 and float64 soon differ by more than 1e-3. A vector
# halfway between two codes goes to either; a code at its vectors' mean has a rounding error for a gradient, which Adam
# enlarges to a full step.
@pytest.mark.parametrize(("init", "lr", "steps"), [("uniform", 1e-2, 20), ("data", 1e-3, 5)])
@pytest.mark.parametrize("rule", RULES)
def test_steps_are_the_library_s(rule, init, lr, steps, digits, tmp_path, monkeypatch):
    config = VQVAEConfig(**SHAPE, **RULES[rule], init=init, lr=lr, device="cpu", precision="float32")
    model, draws = VQVAE(config).train(), []

    def draw(z):
        draws.append(torch.randperm(len(z))[: config.num_embeddings].tolist())
        return z[draws[-1]]

    monkeypatch.setattr(model.vq, "_draw", draw)
    weights = {name: value.flatten().tolist() for name, value in model.state_dict().items() if "vq.u" not in name}
    optimizer = torch.optim.Adam(model.parameters())
    images = digits.images[torch.randint(len(digits), (steps, config.batch_size))]
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
        losses.append({name: float(value.detach()) for name, value in results.items() if value.dim() == 0})
    (tmp_path / "images").write_bytes(images.numpy().tobytes())
    settings = {**SHAPE, **RULES[rule], "init": init, "lr": lr, "steps": steps}
    answer = node("parity", settings=settings, weights=weights, images=str(tmp_path / "images"), draws=draws)
    assert answer["left"] == 0  # it draws as often
    if init == "data" and rule == "gradient":
        del gradients["vq.codebook"]  # rounding errors alone
    assert max(distance(answer["gradients"][name], value) for name, value in gradients.items()) < 1e-4
    for ours, theirs in zip(answer["losses"], losses, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
    assert distance(answer["usage"], model.vq.usage) < 1e-3


@pytest.fixture
def data(tmp_path, digits) -> dict[str, str]:
    """Files of pictures: 3,712 to train on where MNIST is on disk, and 256 to test on."""
    more = lib.load_images("mnist").subset(slice(3_712)) if HAS_MNIST else digits
    for name, images in (("train", more.images), ("test", digits.images[:256])):
        (tmp_path / name).write_bytes(images.numpy().tobytes())
    return {name: str(tmp_path / name) for name in ("train", "test")}


def test_a_run_is_the_same_each_time_and_memory_does_not_grow(data):
    settings = {"hidden_dim": 16, "embedding_dim": 8, "num_embeddings": 32, "steps": 6, "rule": "restart", "seed": 3}
    larger = {**settings, "num_embeddings": 64, "seed": 4}
    runs = node("runs", settings=[larger, *[settings] * 9], every=3, **data)
    assert len({run["size"] for run in runs}) == 1
    again = [(run["history"], run["shown"]) for run in runs[1:]]
    assert all(other == again[0] for other in again)
    assert runs[0]["history"] != again[0][0]
    test = np.fromfile(data["test"], np.uint8).reshape(-1, 784)
    assert runs[0]["variance"] == pytest.approx((test / 255).var(), rel=1e-6)
    train = np.fromfile(data["train"], np.uint8).reshape(-1, 784)
    squares = ((test / 255 - (train / 255).mean(0)) ** 2).mean()
    assert runs[0]["meanPicture"] == pytest.approx(squares / runs[0]["variance"], rel=1e-6)
    shown = again[0][1]
    assert bytes(shown["originals"]) == test[:8].tobytes()
    assert {len(shown["pictures"]), len(shown["indices"]), len(shown["sheet"])} == {8 * 784, 8 * 49, 32 * 16}
    assert set(shown["indices"]) <= set(range(32))


def test_other_stations_compute_what_a_trained_model_does_and_color_like_codes_alike(data):
    settings = {"hidden_dim": 16, "embedding_dim": 8, "num_embeddings": 32, "steps": 30}
    found = node("kept", settings=settings, **data)
    about, shown, own = found["about"], found["shown"], found["own"]
    assert shown["codes"] == own["codes"]
    assert max(abs(a - b) for a, b in zip(shown["drawn"], own["drawn"], strict=True)) <= 1
    test = np.fromfile(data["test"], np.uint8) / 255
    assert about["MSE"] == pytest.approx(found["normalized_mse"] * test.var(), rel=1e-6)
    shares = 2.0 ** -np.array(about["prices"])
    assert shares.sum() == pytest.approx(1)
    codes, counts = 256 * 49, 256 * 49 * shares * (1 + 16 / (256 * 49)) - 0.5  # half a use was added to each
    assert (counts > 0.25).sum() == found["codes"] and counts.sum() == pytest.approx(codes)
    codebook = torch.tensor(found["codebook"]).view(32, 8)
    ours, theirs = (
        torch.tensor([[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in found]).float()
        for found in (about["colors"], files.colors(codebook))
    )
    near = torch.cdist(codebook, codebook).fill_diagonal_(torch.inf).argmin(dim=1)
    for colors in (ours, theirs):  # axes have no sign, so that the colors themselves may differ
        apart = torch.cdist(colors, colors)
        assert apart[torch.arange(32), near].mean() < 0.7 * apart.mean()


@pytest.mark.slow
@needs_mnist
def test_three_hundred_steps_learn_digits(data):
    [run] = node("runs", settings=[{"rule": "restart"}], every=20, **data)
    assert run["history"][-1]["normalized_mse"] <= 0.07
    assert run["troubles"] == []


FEW = {"num_embeddings": 512, "rule": "gradient", "init": "uniform", "lr": 1e-3, "schedule": "constant"}


@pytest.mark.slow
def test_runs_in_the_page_are_named_too(data):
    burst = {"lr": 1e30, "rule": "ema", "steps": 4, "hidden_dim": 16}
    few, not_finite = node("runs", settings=[{**FEW, "steps": 100}, burst], every=20, **data)
    assert "codes" in few["troubles"]
    assert not_finite["troubles"] == ["finite"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("choices", "named"),
    [
        ({}, []),
        (FEW, ["codes"]),
        ({"lr": 1.0, "schedule": "constant"}, ["mean", "codes"]),
        ({"commitment_cost": 0.0}, ["growing"]),
        ({"then": 0.3}, ["worse"]),
        ({"lr": 1e30}, ["finite"]),
    ],
    ids=["none", "codes", "mean", "growing", "worse", "finite"],
)
def test_trouble_of_the_library_s_runs_is_named(choices, named, digits):
    then, rule, steps = choices.pop("then", None), choices.pop("rule", "restart"), 200
    config = VQVAEConfig(**{**SHAPE, **RULES[rule], **choices}, device="cpu", precision="float32")
    trainer, loader = lib.VQVAETrainer(config), lib.BatchLoader(digits, 32, shuffle=True, drop_last=True)
    x, history = digits.floats(slice(0, 256)), []

    def measure(trainer):
        history.append(measured(trainer.model, x, trainer.step))

    try:
        trainer.fit(loader, steps=steps, window=20, callback=measure)
    except (lib.TrainingError, ValueError):  # the second if the encoder met it first
        history.append({"step": trainer.step, "normalized_mse": None, "codes": 1, "z_length": None})
    if then:
        trainer.config = replace(config, lr=then, schedule="constant")
        trainer.fit(loader, steps=40, window=20, callback=measure)
    gray = float(x.double().var(correction=0))
    about = {"num_embeddings": config.num_embeddings, "steps": steps}
    about["meanPicture"] = float((x - x.mean(0)).double().square().mean()) / gray
    [found] = node("troubles", cases=[{"history": history, "about": about}])
    assert set(named) <= set(found)
    assert named or not found  # a healthy run has no name


@needs_mnist
def test_the_sheet_holds_both_halves_of_mnist_and_names_its_source(tmp_path):
    path = train_sheet.write_sheet(tmp_path)
    assert path.stat().st_size <= 1_000_000
    with Image.open(path) as sheet:
        assert "MNIST" in sheet.text["Source"]
        pictures = np.asarray(sheet).reshape(-1, 28, 64, 28).swapaxes(1, 2).reshape(-1, 28, 28)
    parts = [lib.load_images("mnist", train=train) for train in (True, False)]
    assert (pictures[:3_712] == parts[0].images[:3_712, 0].numpy()).all()
    assert (pictures[3_712:] == parts[1].images[:256, 0].numpy()).all()


def test_without_mnist_there_is_no_sheet(tmp_path, monkeypatch):
    glyphs = lib.ImageDataset(*lib.draw_glyphs("01", 4_096, seed=0), "glyphs")
    monkeypatch.setattr(train_sheet, "load_images", lambda *_, **__: glyphs)
    assert train_sheet.write_sheet(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_what_goes_wrong_is_explained_in_a_section_that_is_there():
    links = re.findall(
        r'"(\d\d_\w+)", "([\w-]+)"\]', (ROOT / "vqvae_book" / "lab" / "train.js").read_text(encoding="utf-8")
    )
    assert len(links) == 5
    for page, section in links:
        cells = notebooks.read(ROOT / "chapters" / f"{page}.ipynb").cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        assert section in {make_id(head) for head in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
