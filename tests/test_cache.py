"""Trained models in the cache: taken only where nothing has changed, shared, gone on with, and never lost."""

import logging
import multiprocessing
import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from helpers import same_bits

import vqvae_lib
from vqvae_book.cache import load_or_train
from vqvae_lib import BatchLoader, ImageDataset, VQVAEConfig, VQVAETrainer

TINY = VQVAEConfig(hidden_dim=4, num_embeddings=8, embedding_dim=2, batch_size=8, device="cpu")
SAVE = VQVAETrainer.save


def batches(**options: int) -> BatchLoader:
    images = torch.randint(256, (32, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return BatchLoader(ImageDataset(images), 8, **{"shuffle": True, "drop_last": True, "seed": 0, **options})


def take(cache: Path | None, steps: int = 6, config: VQVAEConfig = TINY, loader: BatchLoader | None = None) -> dict:
    return load_or_train(config, loader or batches(), steps=steps, cache=cache).state_dict()


@pytest.fixture(scope="module")
def expected() -> dict:
    trainer = VQVAETrainer(TINY)
    trainer.fit(batches(), steps=6)
    return trainer.state_dict()


@pytest.fixture
def fits(monkeypatch) -> Mock:  # it counts its calls
    mock = Mock(side_effect=VQVAETrainer.fit)
    monkeypatch.setattr(VQVAETrainer, "fit", lambda *args, **options: mock(*args, **options))
    return mock


def test_a_model_is_trained_once_until_anything_that_matters_changes(tmp_path, fits, expected):
    assert all(same_bits(take(tmp_path), expected) for _ in range(2))
    assert fits.call_count == 1
    loader = batches()
    loader.dataset.images[0, 0, 0, 0] ^= 1
    for other in (loader, batches(seed=1), batches(shuffle=False), batches(drop_last=False)):
        take(tmp_path, loader=other)
    take(tmp_path, config=replace(TINY, lr=1e-3))
    take(tmp_path, steps=7)
    assert fits.call_count == 7
    windows = load_or_train(TINY, batches(), steps=8, window=3, cache=tmp_path).history["step"]
    assert windows == [3, 6, 8]


def test_it_is_trained_anew_for_the_source_that_training_needs_and_no_other(tmp_path, fits, monkeypatch):
    library = tmp_path / "vqvae_lib"
    shutil.copytree(Path(vqvae_lib.__file__).parent, library, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(vqvae_lib, "__file__", str(library / "__init__.py"))
    take(tmp_path / "cache", steps=1)
    for module, times in (("standin", 1), ("prior", 1), ("quantizer", 2), ("running", 3)):
        (library / f"{module}.py").write_text("# another text")
        take(tmp_path / "cache", steps=1)
        assert fits.call_count == times, module


def test_an_unfinished_run_goes_on_to_the_same_bits(tmp_path, fits, expected, monkeypatch):
    def interrupted(self, path):
        SAVE(self, path)
        if self.step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(VQVAETrainer, "save", interrupted)
        take(tmp_path)
    assert same_bits(take(tmp_path), expected)
    assert fits.call_count == 1  # the second call resumed


def test_two_processes_share_the_cache(tmp_path, expected):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=take, args=(tmp_path,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert [worker.join() or worker.exitcode for worker in workers] == [0, 0]
    assert same_bits(take(tmp_path), expected)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_fault_of_the_cache_costs_no_trained_model_and_is_told(tmp_path, expected, monkeypatch, caplog):
    (tmp_path / "file").write_text("")  # in the folder's place
    assert same_bits(take(tmp_path / "file"), expected)
    with monkeypatch.context() as patch:
        patch.setattr(VQVAETrainer, "save", Mock(side_effect=[None, None, OSError(28, "No space left")]))
        assert same_bits(take(tmp_path / "full"), expected)
    take(tmp_path / "damaged")
    (path,) = (tmp_path / "damaged").iterdir()
    path.write_bytes(path.read_bytes()[:100])
    assert same_bits(take(tmp_path / "damaged"), expected)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 3


def test_the_cache_is_where_the_environment_says_and_a_tilde_is_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for place in ("", "~/models"):
        monkeypatch.setenv("VQVAE_CACHE", place)
        take(None, steps=1)
    assert [len(list((tmp_path / folder).iterdir())) for folder in (".cache/vqvae_lib/runs", "models")] == [1, 1]
