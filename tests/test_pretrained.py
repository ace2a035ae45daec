"""The models that come with the library: each has its published error, and says where it comes from."""

from __future__ import annotations

import pytest
import torch
from helpers import needs_mnist, same_bits

import vqvae_lib.pretrained
from vqvae_book import pretrained, studies
from vqvae_book.results import stored_studies
from vqvae_lib import VQVAE, PixelCNN, about_pretrained, load_images, mse, normalized_mse, pretrained_names

SIZES = {"mnist-k8": 8, "mnist-k32": 32, "mnist-k128": 128, "mnist-k512": 512}
PRIOR = "mnist-k32-classes"


def test_they_are_light_in_half_precision_and_know_their_origin():
    assert set(pretrained_names("VQVAE")) == set(SIZES) and pretrained_names("PixelCNN") == [PRIOR]
    assert sum(path.stat().st_size for path in vqvae_lib.pretrained.WEIGHTS.iterdir()) < 5_000_000
    for name in pretrained_names():
        about = about_pretrained(name)
        assert {"data", "train", "test", "torch", "date"} <= about["provenance"].keys() and about["steps"] > 0
        assert about.get("codes kept", 1) >= 0.999


@pytest.mark.parametrize("name", SIZES)
def test_an_autoencoder_comes_ready_to_evaluate_whatever_was_drawn_before(name):
    model = VQVAE.from_pretrained(name)
    assert not model.training and model.vq.num_embeddings == SIZES[name]
    assert all(value.dtype in (torch.float32, torch.int64) for value in model.state_dict().values())
    x = torch.rand(2, 1, 28, 28)
    assert torch.equal(model.encode(x), VQVAE.from_pretrained(name).encode(x))


def test_a_name_that_is_not_there_or_of_another_class_is_refused():
    for kind, name in ((VQVAE, "mnist-k31"), (VQVAE, PRIOR), (PixelCNN, "mnist-k32")):
        with pytest.raises(ValueError, match="mnist-k32"):
            kind.from_pretrained(name)


@torch.no_grad()
@needs_mnist
@pytest.mark.parametrize("name", SIZES)
def test_the_published_error_is_that_of_the_shipped_weights(name):
    about, test = about_pretrained(name), load_images(train=False)
    assert about["provenance"]["test"] == test.fingerprint()
    model, x = VQVAE.from_pretrained(name), test.subset(slice(None, None, 10)).floats()
    found = mse(x, model.decode(model.encode(x)))
    # A tenth of the images: their error is within a twentieth of that of all.
    assert found == pytest.approx(about["MSE"], rel=0.05)
    assert normalized_mse(found, test.variance()) < 0.1


@torch.no_grad()
@needs_mnist
@pytest.mark.parametrize("name", [PRIOR])
def test_the_prior_has_its_published_bits(name):
    about, test = about_pretrained(name), load_images(train=False).subset(slice(None, None, 20))
    prior, model = PixelCNN.from_pretrained(name), VQVAE.from_pretrained(about["of"])
    bits = prior.training_step(model.encode(test.floats()), test.labels)["bits_per_image"]
    assert float(bits) == pytest.approx(about["bits"], rel=0.03)


@pytest.mark.parametrize("name", ["mnist-k8", "mnist-k32", "mnist-k128"])
def test_errors_agree_with_the_stored_studies(name):
    """The same settings and seed on another day: within the spread of the study's seeds."""
    errors = [study.numbers["MSE"] for study in stored_studies(f"prior-K{SIZES[name]:04d}")]
    spread = max(errors) - min(errors)
    assert min(errors) - spread <= about_pretrained(name)["MSE"] <= max(errors) + spread


@pytest.mark.slow
def test_what_is_missing_is_made_and_comes_back_as_it_was_measured(digits, tmp_path, monkeypatch):
    monkeypatch.setenv("VQVAE_CACHE", str(tmp_path / "runs"))
    for module in (pretrained, vqvae_lib.pretrained):
        monkeypatch.setattr(module, "WEIGHTS", tmp_path)
    for module in (pretrained, studies):
        monkeypatch.setattr(module, "data", lambda name="mnist": (digits, digits))
    monkeypatch.setattr(pretrained, "STEPS", {"model": 2, "prior": 2})
    monkeypatch.setattr(pretrained, "MODELS", {"mnist-k32": 32})
    pretrained.main([])
    model, about = VQVAE.from_pretrained("mnist-k32"), about_pretrained("mnist-k32")
    codes = model.encode(digits.floats())
    assert about["MSE"] == pytest.approx(mse(digits.floats(), model.decode(codes).detach()), rel=1e-5)
    assert about["usage"] == codes.flatten().bincount(minlength=32).tolist() and about["steps"] == 2
    prior = PixelCNN.from_pretrained(PRIOR)
    bits = prior.training_step(codes, digits.labels)["bits_per_image"]
    assert about_pretrained(PRIOR)["bits"] == pytest.approx(float(bits.detach()), rel=1e-3)
    state = prior.state_dict()
    written = (tmp_path / f"{PRIOR}.safetensors").stat().st_mtime_ns
    pretrained.main([])  # all is there
    assert (tmp_path / f"{PRIOR}.safetensors").stat().st_mtime_ns == written
    assert same_bits(state, PixelCNN.from_pretrained(PRIOR).state_dict())
