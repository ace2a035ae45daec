"""What readers move themselves: pictures step by step, and their own training.

`step_through` needs no kernel: it shows ``widgets.html``. Training works in Jupyter
(ipywidgets 8) and Colab (7). The sweep's explorer is in `explorer`.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING

import ipywidgets
from matplotlib.figure import Figure
from torch import Tensor

from vqvae_lib import Trainer, VQVAEConfig, VQVAETrainer
from vqvae_lib._util import check_int, require
from vqvae_lib.data import ImageDataset, create_dataloader

from .explorer import NUMBERS
from .explorer import explore_sweep as explore_sweep  # some import it from here
from .figures.draw import metric_panels
from .figures.style import small_png
from .notebook import embed, quick
from .results import PICTURES, Result, describe, png_strip

if TYPE_CHECKING:
    from IPython.display import HTML

RULES = {"moving averages (EMA)": "ema", "gradient": "gradient"}
MOST_CODES = 1 << 14  # more would fill a small machine's memory
MOST_CURVES = 6  # in one figure: more can't be told apart
WINDOW = 10  # steps between two looks at the Stop button
# Label -> name in a result, and format.
SETTINGS = {
    "K": ("num_embeddings", ""),
    "β": ("commitment_cost", "g"),
    "update rule": ("codebook_update", ""),
    "steps": ("steps", ""),
}


def step_through(frames: Sequence[Tensor], alts: Sequence[str], name: str) -> HTML:
    """Show pictures one at a time: a slider chooses which, the middle one at first.

    Args:
        frames: each (n, C, H, W) in [0, 1], n images side by side.
        alts: an alternative text for each.
        name: of the slider, which counts from 0.
    """
    allowed = f"{len(frames)}, one per frame, and 1 or more"
    require(len(frames) == len(alts) > 0, "texts", len(alts), allowed)
    start, last = len(frames) // 2, len(frames) - 1
    n, _, height, width = frames[0].shape
    strips = [png_strip(frame) for frame in frames]
    return embed(
        __file__,
        FRAMES=list(zip(strips, alts, strict=True)),
        FIRST=strips[start],
        ALT=escape(alts[start]),
        NAME=escape(name),
        START=start,
        LAST=last,
        ROOM=len(f"{last} of {last}"),  # for the longest, so that nothing moves
        HEIGHT=height,
        WIDTH=n * width,
    )


class TrainExplorer(ipywidgets.VBox):
    """Fields for a setting, Train and Stop, and a comparison that grows with each run.

    Training runs in its own thread, so that the kernel can react to Stop. Threads share
    torch's generators, so random draws in other cells meanwhile follow no seed.

    Args:
        config: the choices that have no field.
        train, test: images to train on and to measure with.

    Attributes:
        runs: what has been trained.
        thread: of the latest run, or None.
    """

    def __init__(
        self, config: VQVAEConfig, train: ImageDataset, test: ImageDataset
    ) -> None:
        self.config, self.images, self.test = config, train, test
        self.runs: list[Result] = []
        self.thread: threading.Thread | None = None
        self._stop = threading.Event()
        layout = ipywidgets.Layout(width="100%", max_width="24em")
        look = {"layout": layout, "style": {"description_width": "7em"}}
        self.size = ipywidgets.IntText(config.num_embeddings, description="K", **look)
        beta, rule = config.commitment_cost, config.codebook_update
        self.beta = ipywidgets.FloatText(beta, description="β", **look)
        self.rule = ipywidgets.Dropdown(
            options=RULES, value=rule, description="update rule", **look
        )
        self.steps = ipywidgets.IntText(quick(150), description="steps", **look)
        self.train_button = ipywidgets.Button(
            description="Train", button_style="primary"
        )
        self.stop_button = ipywidgets.Button(description="Stop", disabled=True)
        self.progress = ipywidgets.IntProgress(0, description="progress", **look)
        self.message, self.comparison = ipywidgets.HTML(), ipywidgets.HTML()
        self.train_button.on_click(self._start)
        self.stop_button.on_click(lambda _: self._stop.set())
        buttons = ipywidgets.HBox([self.train_button, self.stop_button])
        fields = [self.size, self.beta, self.rule, self.steps]
        below = [self.progress, self.message, self.comparison]
        super().__init__([*fields, buttons, *below])

    def train(self, config: VQVAEConfig, steps: int) -> Result:
        """Train with progress until Stop is clicked, and measure on the test images."""

        def report(trainer: Trainer) -> bool:
            self.progress.value = trainer.step
            return not self._stop.is_set()

        trainer = VQVAETrainer(config)
        loader = create_dataloader(config, dataset=self.images)
        trainer.fit(loader, steps=steps, window=WINDOW, callback=report)
        test = create_dataloader(config, dataset=self.test, train=False)
        settings = {**config.identity(), "steps": trainer.step}
        name = f"run {len(self.runs) + 1}"
        return Result(name, settings, provenance={}, **describe(trainer, test))

    def _start(self, _: ipywidgets.Button) -> None:
        if self.train_button.disabled:  # two clicks in quick succession
            return
        size, steps = self.size.value, self.steps.value
        try:
            require(size <= MOST_CODES, "K", size, f"{MOST_CODES} or less here")
            check_int("steps", steps)
            config = replace(
                self.config,
                num_embeddings=size,
                commitment_cost=self.beta.value,
                codebook_update=self.rule.value,
            )
        except ValueError as error:
            self._fail(error)
            return
        self._stop.clear()
        self.train_button.disabled, self.stop_button.disabled = True, False
        self.progress.max, self.progress.value = steps, 0
        self._say(f"Training on {len(self.images):,} images of {self.images.name} …")
        work = {"target": self._work, "args": (config, steps), "daemon": True}
        self.thread = threading.Thread(**work)
        self.thread.start()

    def _work(self, config: VQVAEConfig, steps: int) -> None:
        try:
            self.runs.append(self.train(config, steps))
            done = self.runs[-1].settings["steps"]
            stopped = f" of {steps}, stopped" if done < steps else ""
            self.comparison.value = self._compared()
            self._say(f"Run {len(self.runs)}: {done} steps{stopped}.")
        except Exception as error:  # noqa: BLE001 - whatever it is, the reader is told
            self._fail(error)
        finally:
            self.train_button.disabled, self.stop_button.disabled = False, True

    def _compared(self) -> str:
        """Show all runs: a table, curves of the latest, reconstructions."""
        labels, rows = {value: name for name, value in RULES.items()}, []
        drawn, columns = [_first(self.test)], SETTINGS | NUMBERS
        for run in self.runs:
            facts = run.settings | run.numbers
            facts["codebook_update"] = labels[facts["codebook_update"]]
            cells = [format(facts[key], form) for key, form in columns.values()]
            rows.append([run.name, *cells])
            label = "{}: K = {}, β = {}, {}, {} steps".format(*rows[-1])
            seen = f"The same images as {label} redraws them; MSE {cells[4]}."
            drawn.append(_strip(label, run.pictures["reconstructions"], seen))
        axis, latest = "training MSE per pixel", self.runs[-MOST_CURVES:]
        curves = {r.name: (r.history["step"], r.history["recon_loss"]) for r in latest}
        ends = [
            f"{run} ends at {errors[-1]:.4f}" for run, (_, errors) in curves.items()
        ]
        plot = _plot(
            metric_panels({axis: curves}, log=[axis]),
            f"Training error over the steps: {'; '.join(ends)}.",
        )
        return "".join([_table(["run", *columns], rows), plot, *drawn])

    def _say(self, text: str) -> None:
        self.message.value = f'<p role="status">{escape(text)}</p>'

    def _fail(self, error: Exception) -> None:
        what = escape(str(error) or repr(error))
        self.message.value = f'<p role="alert"><strong>No run:</strong> {what}</p>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table whose first column names its rows."""
    lines = ["".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)]
    for name, *cells in rows:
        values = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        lines.append(f'<th scope="row">{escape(name)}</th>{values}')
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    table = f'<table class="table">{body}</table>'
    return f'<div style="overflow-x:auto">{table}</div>'


def _first(test: ImageDataset) -> str:
    images = test.floats(slice(PICTURES))
    return _strip("originals", images, f"The first {PICTURES} test images.")


def _strip(caption: str, images: Tensor, alt: str) -> str:
    """Show images side by side under their caption, enlarged without smoothing."""
    look = "width:40em;max-width:100%;image-rendering:pixelated"
    picture = _image(png_strip(images), alt, look)
    caption = f"<figcaption>{escape(caption)}</figcaption>"
    return f'<figure style="margin:.3em 0">{picture}{caption}</figure>'


def _plot(figure: Figure, alt: str) -> str:
    """Show a figure with fewer dots and colors than usual."""
    png = small_png(figure, colors=12, dpi=100)
    return _image(base64.b64encode(png).decode(), alt, "max-width:100%")


def _image(png: str, alt: str, style: str) -> str:
    data = f"data:image/png;base64,{png}"
    return f'<img alt="{escape(alt)}" style="{style}" src="{data}">'
