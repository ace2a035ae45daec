"""The lab's own code, run by node, computes what the library computes."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from helpers import needs_mnist
from project import ROOT

from vqvae_book.lab import files, lab
from vqvae_lib import (
    VQVAE,
    ImageDataset,
    PixelCNN,
    PriorConfig,
    VQVAEConfig,
    about_pretrained,
    draw_glyphs,
    load_images,
    pretrained_names,
    sampling_distribution,
)

HERE = Path(__file__).parent / "lab"
CLOSE = {"rtol": 1e-4, "atol": 1e-5}

pytestmark = pytest.mark.skipif(not shutil.which("node"), reason="needs Node.js")


def ask(folder, calls, model=None, bits=16):
    """What the lab's code answers to calls, each [name, arguments ...] of a model or of the module."""
    asked = {"calls": calls}
    if model is not None:
        content, layout = files.pack(model, bits)
        (folder / "weights.bin").write_bytes(content)
        asked |= {"layout": layout, "kind": type(model).__name__}
    (folder / "asked.json").write_text(json.dumps(asked))
    subprocess.run(["node", HERE / "run.mjs", folder], check=True)
    return json.loads((folder / "answers.json").read_text())


def halved(model):
    """A model with weights that half precision holds exactly."""
    model.load_state_dict({k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()})
    return model.eval()


@pytest.fixture
def vqvae():
    return halved(VQVAE(VQVAEConfig(hidden_dim=10, num_embeddings=24, embedding_dim=5, init="uniform", device="cpu")))


@pytest.fixture
def prior():
    config = PriorConfig(num_embeddings=11, num_classes=10, hidden_dim=6, layers=3, device="cpu")
    return halved(PixelCNN(config))


@torch.no_grad()
def test_features_and_decoded_pictures_are_those_of_the_library(vqvae, tmp_path):
    x, codes = torch.rand(2, 1, 28, 28), torch.randint(24, (2, 7, 7))
    flat = [image.flatten().tolist() for image in x], [grid.flatten().tolist() for grid in codes]
    *ours, first, second = ask(
        tmp_path, [["features", one] for one in flat[0]] + [["decode", one] for one in flat[1]], vqvae
    )
    z_e = vqvae.encoder(x).movedim(1, -1).reshape(2, -1)
    torch.testing.assert_close(torch.tensor(ours), z_e, **CLOSE)
    torch.testing.assert_close(torch.tensor([first, second]), vqvae.decode(codes).flatten(1), **CLOSE)


@torch.no_grad()
def test_codes_are_the_nearest_and_a_way_between_two_grids_ends_at_both(vqvae, tmp_path):
    vqvae.vq.codebook.copy_(torch.randn(24, 5).half())
    z = torch.randn(49, 5)
    a, b = torch.randint(24, (2, 49)).tolist()
    calls = [["nearest", z.flatten().tolist()], ["between", a, b, 0], ["between", a, b, 1], ["alike", 3]]
    nearest, start, end, alike = ask(tmp_path, calls, vqvae)
    distance = torch.cdist(z.double(), vqvae.vq.codebook.double())
    assert nearest == distance.argmin(1).tolist()
    assert (start, end) == (a, b)
    assert alike[0] == 3 and sorted(alike) == list(range(24))


@torch.no_grad()
def test_logits_are_those_of_the_library_whatever_was_asked_before(prior, tmp_path):
    """What is kept of one grid is not taken for another's: places, codes and classes come in any order."""
    grids, labels = torch.randint(11, (3, 7, 7)), torch.tensor([2, 2, 7])
    grids[1, :4] = grids[0, :4]  # with the beginning of another
    places = [(0, 48), (1, 30), (0, 10), (1, 48), (2, 0), (2, 48), (0, 27), (1, 28), (1, 29)]
    calls = [["logits", grids[n].flatten().tolist(), int(labels[n]), place] for n, place in places]
    ours = torch.tensor(ask(tmp_path, calls, prior))
    theirs = prior(grids, labels).flatten(2)
    torch.testing.assert_close(ours, torch.stack([theirs[n, :, place] for n, place in places]), **CLOSE)


@torch.no_grad()
def test_bits_are_the_priors_and_eight_bits_are_read_as_they_are_written(prior, tmp_path):
    grid = torch.randint(11, (1, 7, 7))
    [bits] = ask(tmp_path, [["bits", grid.flatten().tolist(), 4]], prior, bits=8)
    for value in prior.state_dict().values():
        if value.dim() > 1:
            rows = value.flatten(1)
            scale = rows.abs().amax(1, keepdim=True) / 127
            value.copy_(((rows / scale).round() * scale).view(value.shape))
    nats = prior.nats(grid, torch.tensor([4]))
    torch.testing.assert_close(torch.tensor(bits), nats.flatten() / torch.tensor(2.0).log(), **CLOSE)


@pytest.mark.parametrize(("temperature", "top_p"), [(1, 1), (0.5, 1), (1.3, 0.8), (0.7, 0.3), (1, 1e-9)])
def test_temperature_and_top_p_cut_as_the_library_does(temperature, top_p, tmp_path):
    logits = (3 * torch.randn(40, dtype=torch.float64)).tolist()
    [ours] = ask(tmp_path, [["distribution", logits, temperature, top_p]])
    theirs = sampling_distribution(torch.tensor(logits, dtype=torch.float64), temperature, top_p)
    torch.testing.assert_close(torch.tensor(ours, dtype=torch.float64), theirs)


def test_draws_follow_their_distribution_and_a_seed_repeats_them(tmp_path):
    numbers = ask(tmp_path, [["uniform", seed, place] for seed in range(200) for place in range(49)])
    assert numbers[:9] == ask(tmp_path, [["uniform", 0, place] for place in range(9)])
    assert min(numbers) >= 0 and max(numbers) < 1
    counts = torch.histc(torch.tensor(numbers), 10, 0, 1)
    assert (counts / len(numbers) - 0.1).abs().max() < 0.015
    drawn = ask(tmp_path, [["draw", [0.2, 0, 0.5, 0.3], u] for u in (0, 0.19, 0.21, 0.69, 0.71, 0.999999)])
    assert drawn == [0, 0, 2, 2, 3, 3]


@pytest.mark.slow
@needs_mnist
@torch.no_grad()
def test_codes_of_a_thousand_test_images_are_those_of_the_library(tmp_path):
    model, x = VQVAE.from_pretrained("mnist-k32"), load_images(train=False).floats(slice(1000))
    ours = ask(tmp_path, [["encode", image.flatten().tolist()] for image in x], model)
    assert (torch.tensor(ours) == model.encode(x).flatten(1)).float().mean() >= 0.999


def test_the_site_gets_every_model_light_enough_with_what_the_page_must_know_of_it(tmp_path):
    files.write_files(tmp_path, ImageDataset(*draw_glyphs("01", 5, seed=1), "glyphs"))
    listed = json.loads((tmp_path / "lab.json").read_text(encoding="utf-8"))
    assert listed["digits"]["source"] == "glyphs" and len(listed["digits"]["labels"]) == 5
    assert {path.stem for path in tmp_path.glob("*.bin")} == {*pretrained_names(), "digits"}
    assert (tmp_path / "digits.bin").stat().st_size == 5 * 28 * 28
    assert {path.name for path in (ROOT / "vqvae_book" / "lab").glob("*.js")} == {p.name for p in tmp_path.glob("*.js")}
    for name, about in listed["models"].items():
        last = about["layout"][-1]
        assert last["at"] < (tmp_path / about["file"]).stat().st_size <= files.MOST_BYTES, name
        if about["class"] == "VQVAE":
            usage = torch.tensor(about_pretrained(name)["usage"])
            assert sorted(range(len(usage)), key=lambda k: about["prices"][k])[0] == int(usage.argmax())
            assert 0 < about["entropy"] <= 49 * math.log2(about["K"])


def test_like_codes_have_like_colors():
    codebook = torch.cat([torch.randn(20, 6), torch.randn(20, 6) + 8])
    codebook[1] = codebook[0] + 0.01
    found = torch.tensor([[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in files.colors(codebook)]).double()
    assert torch.dist(found[0], found[1]) < 10
    assert torch.cdist(found[:20], found[20:]).mean() > torch.cdist(found[:20], found[:20]).mean()


def test_a_chapter_shows_a_picture_and_a_sentence_until_the_script_runs():
    whole, one = lab().data, lab("write").data
    assert "data:image/png;base64,iVBOR" in whole and "chapters/lab.html" in whole
    assert 'start(root, "")' in whole and 'start(root, "write")' in one
    with pytest.raises(ValueError, match="draw"):
        lab("paint")
