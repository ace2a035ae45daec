"""What readers move themselves: the sweep over K and beta, pictures step by step, and training with their settings.

All calls work in Jupyter (ipywidgets 8) and Colab (7); `explore_sweep` and `step_through` also on a page with no kernel
behind it.
"""

from __future__ import annotations

import base64
import functools
import itertools
import os
import statistics
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets
from matplotlib.figure import Figure
from torch import Tensor

from .analysis import active_codes, normalised_mse, rate
from .config import VQVAEConfig, quick, require
from .data import BatchLoader, DataError, ImageDataset, create_dataloader, load_images
from .figures.style import small_png
from .figures.sweep import learning_curves, usage_by_rank
from .figures.training import curves
from .stored import FOLDER, PICTURES, StoredRun, png_strip, sweep
from .training import VQVAETrainer

__all__ = ["TrainExplorer", "explore_sweep", "failed", "step_through", "train_explorer"]

RULES = {"moving averages (EMA)": "ema", "gradient": "gradient"}
MOST_CODES = 1 << 14  # more would fill a small machine's memory before an error could be shown
HALF = "flex:1 1 15em;min-width:0;width:100%;max-width:24em"  # beside its neighbour, or above it on a narrow screen
MOST_CURVES = 6  # in one figure: more can't be told apart
FAILED = 0.5  # share of the pixels' variance; on MNIST one fixed picture for all images loses .7 of it at best


# --- the sweep --------------------------------------------------------------------------------------------------------


def explore_sweep(folder: str | Path = FOLDER) -> Any:
    """Show the stored runs of ``make sweep``: two sliders choose K and beta, the pictures and numbers follow.

    With ipywidgets 8 all panels are made at once and linked to the sliders in the browser, so a page needs no kernel.
    ipywidgets 7 has no ``Stack``: there the kernel makes the panel that the sliders ask for.

    Args:
        folder: where the stored runs lie.

    Returns:
        A widget; a note where the folder holds no sweep.
    """
    points = sweep(folder)
    if not points:
        return _note("This copy of the library holds no runs of the sweep. Remedy: <code>make sweep</code>.")
    sizes, betas = (sorted(set(values)) for values in zip(*points, strict=True))
    errors = [error for runs in points.values() for run in runs for error in run.history["recon_loss"]]
    limits = (min(errors) * 0.9, max(errors) * 1.1)

    @functools.cache
    def panel(size: int, beta: float) -> str:
        return _panel(size, beta, points.get((size, beta), []), limits)

    size_slider, beta_slider = _slider("K", sizes), _slider("β", betas)
    if hasattr(ipywidgets, "Stack"):
        rows, plain = [], ipywidgets.HTML()
        shared = {"layout": plain.layout, "style": plain.style}  # one of each for all panels: a page keeps them all
        for size in sizes:
            row = ipywidgets.Stack([ipywidgets.HTML(panel(size, beta), **shared) for beta in betas])
            rows.append(_follow(row, beta_slider))
        shown = _follow(ipywidgets.Stack(rows), size_slider)
    else:
        shown = ipywidgets.HTML(panel(size_slider.value, beta_slider.value))

        def follow(_: dict) -> None:
            shown.value = panel(size_slider.value, beta_slider.value)

        size_slider.observe(follow, "value")
        beta_slider.observe(follow, "value")
    originals = ipywidgets.HTML(_originals(next(iter(points.values()))[0]))
    return ipywidgets.VBox([size_slider, beta_slider, originals, shown])


def failed(run: StoredRun) -> bool:
    """Whether a run lost more than half of the variance of the test set's pixels: it draws next to nothing."""
    return normalised_mse(run.numbers()["MSE"], run.provenance["variance"]) > FAILED


def _slider(name: str, values: Sequence[float]) -> ipywidgets.SelectionSlider:
    options = [(f"{value:g}", value) for value in values]
    wide = ipywidgets.Layout(width="100%", max_width="32em")
    whole = {"description_width": "initial"}  # the name is not cut off
    return ipywidgets.SelectionSlider(
        description=name, options=options, index=len(options) // 2, layout=wide, style=whole
    )


def _follow(stack: Any, slider: ipywidgets.SelectionSlider) -> Any:
    """Let a stack show the child that the slider points at; the link lives in the browser."""
    stack.selected_index = slider.index
    ipywidgets.jslink((slider, "index"), (stack, "selected_index"))
    return stack


def _originals(run: StoredRun) -> str:
    """The images that every run of the sweep redraws; stored runs hold no image of a dataset."""
    try:
        test = load_images(run.provenance["data"], train=False, stand_in=False)
    except DataError as error:
        return _paragraph(f"The originals can't be shown: {error}")
    if test.fingerprint() != run.provenance["test"]:
        return _paragraph("The originals can't be shown: the dataset on this machine is not the one of the runs.")
    return _strip("originals", test.floats(slice(0, PICTURES)), f"The first {PICTURES} test images.")


def _panel(size: int, beta: float, runs: Sequence[StoredRun], limits: tuple[float, float]) -> str:
    """All that is shown of one setting: reconstructions, numbers, use of the codes, learning curve."""
    setting = f"K = {size}, β = {beta:g}"
    if not runs:
        return _paragraph(f"There is no stored run with {setting}. Remedy: make sweep.")
    lost = [run for run in runs if failed(run)]
    kept = [run for run in runs if not failed(run)] or runs
    first, seeds = runs[0], _seeds(runs)
    numbers = {name: [run.numbers()[name] for run in kept] for name in first.numbers()}
    mean = {name: statistics.fmean(values) for name, values in numbers.items()}
    drawn = _strip(
        f"reconstructions, {setting}, seed {first.config.seed}",
        first.reconstructions,
        f"The same images redrawn with {setting}; seed {first.config.seed}, test MSE {first.numbers()['MSE']:.4f}.",
    )
    note = ""
    if lost:
        which = ", ".join(f"seed {run.config.seed} with a test MSE of {run.numbers()['MSE']:.4f}" for run in lost)
        left = "" if len(lost) == len(runs) else " Mean and range leave out what failed; the plots show all runs."
        note = f"{len(lost)} of {_seeds(runs)} failed, losing more than half of the pixels' variance: {which}.{left}"
    nominal = rate(first.usage, first.positions).nominal
    forms = {
        "MSE": ("test MSE a pixel", ".5f"),
        "bits": (f"bits an image (of {nominal:.0f})", ".0f"),
        "active codes": (f"active codes (of {size})", ".0f"),
        "perplexity": ("perplexity", ".1f"),
    }
    table = _table(
        [setting, f"mean of {_seeds(kept)}", "smallest", "largest"],
        [[label, *(format(v, form) for v in (mean[name], min(numbers[name]), max(numbers[name])))]
         for name, (label, form) in forms.items()],
    )  # fmt: skip
    most = max(float(run.usage.max() / run.usage.sum()) for run in runs)
    usage = _image(
        _palette(usage_by_rank([run.usage for run in runs])),
        f"Use of the codes with {setting}, {seeds}: at least {min(active_codes(run.usage) for run in runs)} of {size} "
        f"are used; the most used takes up to {most:.1%} of the positions.",
        HALF,
    )
    members = [(run.history["step"], run.history["recon_loss"]) for run in runs]
    ends = [values[-1] for _, values in members]
    curve = _image(
        _palette(learning_curves(members, limits)),
        f"Training error with {setting}, {seeds}, over {first.steps} steps: it goes from {members[0][1][0]:.4f} "
        f"to between {min(ends):.4f} and {max(ends):.4f}.",
        HALF,
    )
    plots = f'<div style="display:flex;flex-wrap:wrap;gap:.5em">{usage}{curve}</div>'
    return f"{drawn}{_paragraph(note) if note else ''}{table}{plots}"


def _seeds(runs: Sequence[StoredRun]) -> str:
    return f"{len(runs)} seed{'s' if len(runs) > 1 else ''}"


# --- pictures step by step --------------------------------------------------------------------------------------------


def step_through(frames: Sequence[Tensor], alts: Sequence[str], name: str) -> Any:
    """Show pictures one at a time: a slider chooses which. On a page it needs no kernel, as `explore_sweep`.

    Args:
        frames: each (n, C, H, W) in [0, 1], n images side by side.
        alts: what is to be seen on each.
        name: of the slider, which counts from 0.

    Returns:
        A widget.

    Raises:
        ValueError: no frame, or another number of texts.
    """
    if not frames or len(frames) != len(alts):
        raise ValueError(f"there are {len(frames)} frames and {len(alts)} texts: give one text a frame, and a frame.")
    slider = _slider(name, range(len(frames)))

    def panel(i: int) -> str:
        return _strip(f"{name} {i} of {len(frames) - 1}", frames[i], alts[i])

    if hasattr(ipywidgets, "Stack"):
        shown = _follow(ipywidgets.Stack([ipywidgets.HTML(panel(i)) for i in range(len(frames))]), slider)
    else:
        shown = ipywidgets.HTML(panel(slider.value))

        def follow(_: dict) -> None:
            shown.value = panel(slider.value)

        slider.observe(follow, "value")
    return ipywidgets.VBox([slider, shown])


# --- training ---------------------------------------------------------------------------------------------------------


def train_explorer(
    config: VQVAEConfig | None = None, train: ImageDataset | None = None, test: ImageDataset | None = None
) -> Any:
    """Offer K, beta, the update rule and the number of steps, and train with them.

    Where the environment says ``VQVAE_STATIC=1``, as it does when the book is built, there will be no kernel to train:
    then a note says what to do.

    Args:
        config: all other choices; the library's defaults if not given.
        train, test: images to train on and to measure with; MNIST if not given.

    Returns:
        A :class:`TrainExplorer`, or the note.
    """
    if os.environ.get("VQVAE_STATIC") == "1":
        return _note(
            "<strong>To train with your own K and β</strong>, open this chapter in Colab, with the launch button at "
            "the top of the page where it has one, or in Jupyter, and run its cells. Buttons appear in this place. "
            "This page has no Python behind it that could train."
        )
    return TrainExplorer(
        config or VQVAEConfig(), train or load_images("mnist"), test or load_images("mnist", train=False)
    )


@dataclass(frozen=True)
class _Run:
    """One finished or stopped run of a :class:`TrainExplorer`."""

    config: VQVAEConfig
    planned: int
    steps: list[float]
    errors: list[float]
    numbers: dict[str, float]
    pictures: Tensor


class TrainExplorer(ipywidgets.VBox):
    """Fields for a setting, Train and Stop, and a comparison that grows by a line with each run.

    Training goes on in a thread of its own, so that the kernel stays free to hear of Stop. The threads of a process
    share torch's global generator: cells that run meanwhile draw numbers that no seed decides.

    Args:
        config: the choices that have no field.
        train, test: images to train on and to measure with.

    Attributes:
        size, beta, rule, steps: the fields.
        train_button, stop_button, progress, message, comparison: the rest, from top to bottom.
        runs: what has been trained.
        thread: of the latest run, or None.
    """

    def __init__(self, config: VQVAEConfig, train: ImageDataset, test: ImageDataset) -> None:
        self.config, self.images, self.test = config, train, test
        self.runs: list[_Run] = []
        self.thread: threading.Thread | None = None
        self._stop = threading.Event()
        wide = ipywidgets.Layout(width="100%", max_width="24em")
        style = {"description_width": "7em"}
        self.size = ipywidgets.IntText(config.num_embeddings, description="K", layout=wide, style=style)
        self.beta = ipywidgets.FloatText(config.commitment_cost, description="β", layout=wide, style=style)
        self.rule = ipywidgets.Dropdown(
            options=RULES, value=config.codebook_update, description="update rule", layout=wide, style=style
        )
        self.steps = ipywidgets.IntText(quick(150), description="steps", layout=wide, style=style)
        self.train_button = ipywidgets.Button(description="Train", button_style="primary")
        self.stop_button = ipywidgets.Button(description="Stop", disabled=True)
        self.progress = ipywidgets.IntProgress(0, description="progress", layout=wide, style=style)
        self.message = ipywidgets.HTML()
        self.comparison = ipywidgets.HTML()
        self.train_button.on_click(self._start)
        self.stop_button.on_click(lambda _: self._stop.set())
        buttons = ipywidgets.HBox([self.train_button, self.stop_button])
        fields = [self.size, self.beta, self.rule, self.steps]
        super().__init__([*fields, buttons, self.progress, self.message, self.comparison])

    def _start(self, _: ipywidgets.Button) -> None:
        if self.train_button.disabled:  # two clicks in quick succession
            return
        steps = self.steps.value
        try:
            require(self.size.value <= MOST_CODES, "K", self.size.value, f"{MOST_CODES} or less here")
            require(steps >= 1, "steps", steps, "an integer of 1 or more")
            config = replace(
                self.config,
                num_embeddings=self.size.value,
                commitment_cost=self.beta.value,
                codebook_update=self.rule.value,
                num_epochs=steps,  # each "epoch" is one batch, see _Singly
            )
        except ValueError as error:
            self._fail(error)
            return
        self._stop.clear()
        self.train_button.disabled, self.stop_button.disabled = True, False
        self.progress.max, self.progress.value = steps, 0
        self._say(f"Training on {len(self.images):,} images of {self.images.name} …")
        self.thread = threading.Thread(target=self._work, args=(config, steps), daemon=True)
        self.thread.start()

    def _work(self, config: VQVAEConfig, steps: int) -> None:
        try:
            self.runs.append(self._train(config, steps))
            self._show_runs()
            done = int(self.runs[-1].steps[-1]) if self.runs[-1].steps else 0
            self._say(f"Run {len(self.runs)}: {done} steps" + (f" of {steps}, stopped." if done < steps else "."))
        except (ValueError, RuntimeError, MemoryError) as error:  # a diverging run, too little memory, ...
            self._fail(error)
        finally:
            self.train_button.disabled, self.stop_button.disabled = False, True

    def _train(self, config: VQVAEConfig, steps: int) -> _Run:
        trainer = VQVAETrainer(config)
        batches = _Singly(create_dataloader(config, dataset=self.images))
        while trainer.step < steps and not self._stop.is_set():
            trainer.train_epoch(batches)
            if trainer.step % max(1, steps // 100) == 0 or trainer.step == steps:
                self.progress.value = trainer.step
        test = create_dataloader(config, dataset=self.test, train=False)
        pictures, _ = trainer.reconstruct(self.test.floats(slice(0, PICTURES)))
        history = trainer.history
        return _Run(config, steps, history.get("step", []), history["recon_loss"], trainer.evaluate(test), pictures)

    def _show_runs(self) -> None:
        """Draw all runs anew: table, curves of the latest, reconstructions."""
        names = {f"run {i}": run for i, run in enumerate(self.runs, 1)}
        head = ["run", "K", "β", "update rule", "steps", "test MSE", "active codes", "perplexity"]
        rules = {value: name for name, value in RULES.items()}
        rows = [
            [
                name,
                str(run.config.num_embeddings),
                f"{run.config.commitment_cost:g}",
                rules[run.config.codebook_update],
                f"{len(run.steps)}",
                f"{run.numbers['recon_loss']:.5f}",
                f"{run.numbers['active_codes']:.0f}",
                f"{run.numbers['perplexity']:.1f}",
            ]
            for name, run in names.items()
        ]
        drawn = [_strip("originals", self.test.floats(slice(0, PICTURES)), f"The first {PICTURES} test images.")]
        for row, run in zip(rows, self.runs, strict=True):
            label = f"{row[0]}: K = {row[1]}, β = {row[2]}, {row[3]}, {row[4]} steps"
            drawn.append(_strip(label, run.pictures, f"The same images as {label} redraws them; MSE {row[5]}."))
        latest = {name: _means(run) for name, run in names.items() if run.steps}
        latest = dict(list(latest.items())[-MOST_CURVES:])
        ends = "; ".join(f"{name} ends at {values[-1]:.4f}" for name, (_, values) in latest.items())
        axis = "training MSE a pixel"
        plot = _image(
            _palette(curves({axis: latest}, log=[axis])), f"Training error over the steps: {ends}.", "max-width:100%"
        ) if latest else ""  # fmt: skip
        self.comparison.value = _table(head, rows) + plot + "".join(drawn)

    def _say(self, text: str) -> None:
        self.message.value = f'<p role="status">{escape(text)}</p>'

    def _fail(self, error: Exception) -> None:
        self.message.value = f'<p role="alert"><strong>No run:</strong> {escape(str(error) or repr(error))}</p>'


class _Singly:
    """A loader whose passes are one batch long, so that ``train_epoch`` comes back after each step."""

    def __init__(self, loader: BatchLoader) -> None:
        self._batches = itertools.chain.from_iterable(itertools.repeat(loader))

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield next(self._batches)


def _means(run: _Run, window: int = 10) -> tuple[list[float], list[float]]:
    """Average a run's errors over windows of steps, each placed at its end."""
    places = range(0, len(run.steps), window)
    return (
        [run.steps[i : i + window][-1] for i in places],
        [statistics.fmean(run.errors[i : i + window]) for i in places],
    )


# --- HTML -------------------------------------------------------------------------------------------------------------


def _note(text: str) -> Any:
    from IPython.display import HTML  # only there when a notebook runs

    return HTML(f"<blockquote>{text}</blockquote>")


def _paragraph(text: str) -> str:
    return f'<p style="margin:.6em 0">{escape(text)}</p>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column names its rows."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for name, *cells in rows
    )
    return f'<div style="overflow-x:auto"><table class="table"><tr>{top}</tr>{body}</table></div>'


def _strip(caption: str, images: Tensor, alt: str) -> str:
    """Images side by side under their caption, enlarged without smoothing."""
    image = _image(png_strip(images), alt, "width:40em;max-width:100%;image-rendering:pixelated")
    return f'<figure style="margin:.3em 0">{image}<figcaption>{escape(caption)}</figcaption></figure>'


def _palette(figure: Figure) -> str:
    """A figure in base64, of fewer dots and colours than on the page itself: a page holds dozens of them."""
    return base64.b64encode(small_png(figure, colours=12, dpi=100)).decode()


def _image(png: str, alt: str, style: str) -> str:
    return f'<img alt="{escape(alt)}" style="{style}" src="data:image/png;base64,{png}">'
