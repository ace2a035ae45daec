"""Nothing silent: files that lie, numbers that are none, memory that runs out. Each is an error, and nothing moves."""

from __future__ import annotations

import ast
import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import project
import pytest
import torch
from helpers import same_bits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from vqvae_lib import CheckpointError, Trainer, TrainingError, VQVAEConfig, VQVAETrainer
from vqvae_lib.stored import PICTURES, StoredRun
from vqvae_lib.training import KEEP, PARTS, _copied

EXAMPLES = os.environ.get("VQVAE_EXAMPLES")
examples = settings(
    max_examples=int(EXAMPLES or 40),
    derandomize=EXAMPLES is None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def state(trainer: Trainer) -> dict:
    return _copied(trainer._state())


# --- checkpoints ------------------------------------------------------------------------------------------------------


def spoil(place: str, value: object) -> Callable[[dict], None]:
    """Return what puts ``value`` at ``place`` ("model/vq.codebook") of a checkpoint, or takes it out if it is None."""

    def change(saved: dict) -> None:
        *way, last = place.split("/")
        for name in way:
            saved = saved[int(name) if name.isdigit() else name]
        if value is None:
            del saved[last]
        else:
            saved[last] = value(saved[last]) if callable(value) else value

    return change


LIES = {
    **{f"no {part}": spoil(part, None) for part in PARTS},
    **{f"{part} is text": spoil(part, "text") for part in PARTS},
    "version": spoil("format", 1),
    "K, unsaid": spoil("model/vq.codebook", lambda e: torch.cat([e, e])),
    "D, unsaid": spoil("model/vq.codebook", lambda e: e[:, 1:]),
    "a weight's shape": spoil("model/encoder.net.0.weight", lambda w: w.flatten()),
    "a weight less": spoil("model/decoder.net.0.bias", None),
    "a weight more": spoil("model/stranger", torch.zeros(1)),
    "a weight is text": spoil("model/decoder.net.0.bias", "text"),
    "a weight is NaN": spoil("model/decoder.net.0.bias", lambda w: w * math.nan),
    "a code is infinite": spoil("model/vq.codebook", lambda e: e.clone().index_fill_(0, torch.tensor(3), math.inf)),
    "updates are text": spoil("model/vq._extra_state", "text"),
    "averages of another shape": spoil("optimizer/state/0/exp_avg", lambda a: a[:1]),
    "averages are text": spoil("optimizer/state/0/exp_avg", "text"),
    "a weight of no optimiser": spoil("optimizer/param_groups", lambda groups: [{**groups[0], "params": [0]}]),
    "history of text": spoil("history/total_loss", ["low"]),
    "history without lists": spoil("history/total_loss", 0.5),
    "plan of three": spoil("plan", (0, 1, 2)),
    "plan of text": spoil("plan", ("now", "then")),
    "sums of text": spoil("sums", {"total_loss": "low"}),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_checkpoint_that_lies_is_refused_and_moves_nothing(config, loader, tmp_path, lie):
    other, trainer = VQVAETrainer(replace(config, seed=1)), VQVAETrainer(config)
    other.fit(loader, steps=3)
    path = other.save(tmp_path / "run.pt")
    saved = torch.load(path, weights_only=True)
    LIES[lie](saved)
    torch.save(saved, path)
    trainer.fit(loader, steps=2)
    before = state(trainer)
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        trainer.load(path)
    assert same_bits(state(trainer), before)
    trainer.fit(loader, steps=1)  # and it can go on
    assert trainer.step == 3


@pytest.fixture(scope="module")
def small() -> VQVAETrainer:
    trainer = VQVAETrainer(VQVAEConfig(hidden_dim=2, num_embeddings=2, embedding_dim=1, device="cpu"))
    trainer.fit([(torch.rand(4, 1, 4, 4), torch.zeros(4))], steps=2)
    return trainer


@examples
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), cut=st.booleans())
def test_a_bit_flipped_or_an_end_cut_off_is_refused_or_changes_nothing(small, tmp_path, place, flip, cut):
    path = small.save(tmp_path / "run.pt")
    content = bytearray(path.read_bytes())
    at = int(place * len(content))
    if cut:
        del content[at:]
    else:
        content[at] ^= flip
    path.write_bytes(content)
    before = state(small)
    try:
        small.load(path)
    except CheckpointError as error:
        assert str(path) in str(error)
    assert same_bits(state(small), before)  # bytes that mean nothing (a date in the archive) may change


def test_an_entry_that_one_bit_calls_a_folder_is_read_all_the_same(small, tmp_path):
    """torch would take memory as it lies for the numbers of such an entry, without a word."""
    path = small.save(tmp_path / "run.pt")
    content, before = path.read_bytes(), state(small)
    records = [match.start() for match in re.finditer(b"PK\x01\x02", content)]
    assert len(records) > 10
    for record in records:
        attributes = record + 38
        path.write_bytes(content[:attributes] + bytes([content[attributes] | 0x10]) + content[attributes + 1 :])
        small.load(path)
        assert same_bits(state(small), before)


def test_each_byte_of_the_archives_end_may_be_wrong(small, tmp_path):
    """Python 3.11 answers some of these with an error where one asks whether it is an archive at all."""
    path = small.save(tmp_path / "run.pt")
    content, before = path.read_bytes(), state(small)
    refused = 0
    for at in range(len(content) - 120, len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        try:
            small.load(path)
        except CheckpointError as error:
            assert str(path) in str(error)
            refused += 1
        assert same_bits(state(small), before)
    assert refused > 30


@examples
@given(place=st.floats(0, 1, exclude_max=True), character=st.sampled_from('0{["\x00é}]:,-e'))
def test_a_damaged_stored_run_is_refused_or_read(tmp_path, place, character):
    pictures, usage = torch.rand(PICTURES, 1, 8, 8), torch.arange(8)
    run = StoredRun("run", VQVAEConfig(device="cpu"), 1, {"step": [1.0]}, {"recon_loss": 0.1}, usage, pictures, {})
    path = run.write(tmp_path)
    text = path.read_text()
    at = int(place * len(text))
    path.write_text(text[:at] + character + text[at + 1 :])
    try:
        again = StoredRun.read(path)
    except ValueError as error:
        assert "run.json" in str(error)
    else:
        assert again.name == "run"


# --- losses that are not finite ---------------------------------------------------------------------------------------


class Fragile(nn.Module):
    """A model whose loss, or whose gradient alone, breaks at a chosen step."""

    def __init__(self, at: int, fault: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.register_buffer("average", torch.zeros(()))
        self.at, self.fault, self.steps = at, fault, 0

    def training_step(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        self.steps += 1
        self.average.add_(x.mean())  # moved in the forward pass, as a codebook is
        loss = self.weight.square().mean()
        if self.steps == self.at:
            if self.fault == "memory":
                raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
            # sqrt(0) is 0, and has no gradient
            loss = loss * float(self.fault) if self.fault != "gradient" else loss + (0 * self.weight).sqrt().sum()
        return {"total_loss": loss}

    def summarise(self, means: dict[str, Tensor]) -> dict[str, float]:
        return {name: float(value) for name, value in means.items()}


@pytest.mark.parametrize("look_every", [1, KEEP], ids=["on the CPU", "as on a GPU"])
@pytest.mark.parametrize("fault", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("at", [1, 2, KEEP, KEEP + 7])
def test_a_loss_that_is_not_finite_names_its_step_and_spoils_nothing(config, loader, fault, at, look_every):
    trainer = Trainer(Fragile(at, fault), config)
    trainer.look_every = look_every
    sound = (at - 1) // KEEP * KEEP
    with pytest.raises(TrainingError, match=f"total_loss is {fault} at step {at}; .*back at step {sound}.*Lower lr"):
        trainer.fit(loader, steps=60, window=40)
    healthy = Trainer(Fragile(0, fault), config)
    healthy.plan = (0, 60)
    if sound:
        healthy._run(loader, sound, window=40)
        assert same_bits(trainer.model.state_dict(), healthy.model.state_dict())
    assert trainer.step == sound
    assert same_bits(trainer.model.state_dict(), healthy.model.state_dict())
    assert all(map(math.isfinite, trainer.history.get("total_loss", [])))
    trainer.resume(loader)  # the fault does not come again: the run goes on to its end
    assert trainer.step == 60
    assert trainer.history["step"] == [40, 60] if not sound else trainer.history["step"][-1] == 60


def test_on_the_cpu_no_step_is_done_after_the_one_that_fails(config, loader):
    trainer = Trainer(Fragile(9, "nan"), config)
    with pytest.raises(TrainingError, match="at step 9;"):
        trainer.fit(loader, steps=60, window=40)
    assert trainer.model.steps == 9


def test_the_message_names_the_last_good_value(config, loader):
    trainer = Trainer(Fragile(9, "nan"), replace(config, lr=0.0125))
    with pytest.raises(TrainingError, match=r"Lower lr \(now 0.0125\)") as raised:
        trainer.fit(loader, steps=60, window=1)
    assert re.search(r"in the history was \d\.\d+", str(raised.value))
    assert trainer.history == {}  # the model is back at step 0, and so is the history


@pytest.mark.parametrize(("at", "found"), [(7, KEEP), (KEEP, KEEP), (60, 60)])
def test_a_weight_spoiled_by_its_gradient_alone_is_found_before_it_is_kept(config, loader, tmp_path, at, found):
    trainer = Trainer(Fragile(at, "gradient"), config)
    # the step after it has a loss that is not finite; at the end there is none
    expected = (
        f"total_loss is nan at step {at + 1}" if at % KEEP and at < 60 else f"weight is not finite at step {found}"
    )
    with pytest.raises(TrainingError, match=expected):
        trainer.fit(loader, steps=60, save_to=tmp_path / "run.pt")
    assert trainer.model.weight.isfinite().all()
    assert not (tmp_path / "run.pt").exists()


def test_a_run_that_diverges_stops_with_finite_weights_and_codes(config, loader):
    trainer = VQVAETrainer(replace(config, lr=1e25, schedule="constant", precision="float32"))
    with pytest.raises((TrainingError, ValueError), match=r"lower lr|Lower lr") as raised:
        trainer.fit(loader, steps=30)
    assert trainer._finite()
    assert trainer.evaluate(loader)["total_loss"] < 10
    assert isinstance(raised.value, TrainingError) or "as it was after step" in raised.value.__notes__[0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_batch_with_a_value_that_is_not_finite_moves_nothing_and_says_where_the_model_stands(config, loader, bad):
    trainer = VQVAETrainer(config)
    trainer.fit(loader, steps=2)
    before = state(trainer)
    x = torch.rand(32, 1, 28, 28)
    x[3, 0, 5, 5] = bad
    with pytest.raises(ValueError, match="NaN or infinite") as raised:
        trainer.fit([(x, torch.zeros(32))], steps=2)
    assert raised.value.__notes__ == ["The model is as it was after step 2; resume(loader) goes on from there."]
    after = state(trainer)
    assert all(same_bits(after[name], before[name]) for name in ("model", "optimizer", "history", "step"))


def test_an_error_of_the_loader_loses_no_step(config, loader):
    def broken() -> Iterator:
        yield from list(loader)[:4]
        raise RuntimeError("the data's host is gone")

    class Loader:
        __len__ = lambda self: 12  # noqa: E731
        __iter__ = lambda self: broken()  # noqa: E731

    trainer = VQVAETrainer(config)
    with pytest.raises(RuntimeError, match="host is gone"):
        trainer.fit(Loader(), steps=20)
    assert trainer.step == 4


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "remedy"),
    [(32, "set batch_size=16"), (5, "set batch_size=2"), (2, "set batch_size=1"), (1, "hidden_dim")],
)
def test_out_of_memory_names_the_batch_and_a_smaller_one(config, batch, remedy):
    trainer = Trainer(Fragile(4, "memory"), config)
    batches = [(torch.rand(batch, 1, 4, 4), torch.zeros(batch))]
    with pytest.raises(TrainingError, match=f"out of memory at step 4 with batches of {batch}: .*{remedy}"):
        trainer.fit(batches, steps=10)
    assert trainer.step == 0
    trainer.resume(batches)
    assert trainer.step == 10


# --- the tests and the library themselves -----------------------------------------------------------------------------


def calls(tree: ast.AST) -> set[str]:
    """Names of all that is called, the last part of dotted ones."""
    functions = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {f.attr if isinstance(f, ast.Attribute) else getattr(f, "id", "") for f in functions}


def asserts(tree: ast.AST) -> bool:
    return any(isinstance(node, ast.Assert) for node in ast.walk(tree)) or bool(
        {"raises", "assert_close"} & calls(tree)
    )


@pytest.mark.no_mutants
def test_no_test_is_without_an_assertion():
    """An assertion in the test itself, or in a function of the same file that it calls."""
    idle, checked = [], 0
    for path in sorted((project.ROOT / "tests").rglob("test_*.py")):
        functions = [n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.FunctionDef)]
        helpers = {function.name for function in functions if asserts(function)}
        for function in functions:
            if function.name.startswith("test_"):
                checked += 1
                if not asserts(function) and not helpers & calls(function):
                    idle.append(f"{path.name}: {function.name}")
    assert idle == []
    assert checked > 200


def test_the_library_runs_nothing_that_it_reads():
    """No pickle, no eval, no shell; torch files as plain tensors and values alone."""
    for path in sorted((project.ROOT / "vqvae_lib").glob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} & {"eval", "exec", "compile", "__import__"}
        modules = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        modules |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        assert names == set(), path
        assert not modules & {"pickle", "dill", "marshal", "shelve", "subprocess", "yaml"}, path
        assert "system" not in calls(tree), path
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "np.load"):
                assert {k.arg: ast.literal_eval(k.value) for k in node.keywords if k.arg != "map_location"} == {
                    "weights_only": True
                }, path
