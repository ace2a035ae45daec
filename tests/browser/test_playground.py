"""The playground of chapter 2 computes what the library computes, and the keyboard alone suffices to use it."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
import vendor

from vqvae_book.playground import playground
from vqvae_lib import EMAVectorQuantizer, VectorQuantizer, perplexity

N, K, STEPS, BETA, POINT_RATE, CODE_RATE = 120, 12, 50, 0.6, 0.1, 0.5
RULES = {"gradient": (VectorQuantizer, 0.0), "ema": (EMAVectorQuantizer, 0.0), "restart": (EMAVectorQuantizer, 0.04)}
SHELL = '<!doctype html><html lang="en" data-theme="{theme}"><title>Playground</title><body><main><h1>Page</h1>{html}'


@pytest.fixture
def shown(page):
    page.set_content(SHELL.format(theme="light", html=playground().data))
    return page


def course_in_torch(monkeypatch, rule, init, data, start, first_draw, draws):
    """Points that are parameters, moved by SGD, and the library's quantizer, in float64."""
    kind, threshold = RULES[rule]
    vq = kind(K, 2, BETA, restart_threshold=threshold, init=init).double()
    # The same random draws as in the browser: of the first batch for k-means, then one per step.
    drawn = first_draw
    monkeypatch.setattr(torch, "randperm", lambda count, **_: drawn)
    if init == "data":
        vq.initialize(data)
    else:
        vq.codebook.data.copy_(start)
    points = torch.nn.Parameter(data.clone())
    groups = [{"params": [points], "lr": POINT_RATE * N}, {"params": list(vq.parameters()), "lr": CODE_RATE}]
    optimiser = torch.optim.SGD([group for group in groups if group["params"]])
    for drawn in draws:  # noqa: B007, randperm returns it
        optimiser.zero_grad()
        (F.mse_loss(points, data) + vq(points).loss).backward()
        optimiser.step()
    z_q, _, indices = vq.eval()(points)
    counts = torch.bincount(indices, minlength=K)
    return {
        "points": points.detach(),
        "codes": vq.codebook.detach(),
        "usage": vq.usage,
        "distortion": (points - z_q).detach().square().sum(1).mean(),
        "perplexity": perplexity(counts),
        "active": (counts > 0).sum(),
    }


@pytest.mark.parametrize("init", ["uniform", "data"])
@pytest.mark.parametrize("rule", RULES)
def test_fifty_steps_in_the_browser_and_in_torch_agree(shown, monkeypatch, rule, init):
    generator = torch.Generator().manual_seed(11)
    data = 2 * torch.randn(N, 2, generator=generator, dtype=torch.float64)
    start = torch.rand(K, 2, generator=generator, dtype=torch.float64) / 4 - 3  # in a corner: most codes are dead
    first_draw, *draws = [torch.randperm(N, generator=generator)[:K] for _ in range(STEPS + 1)]
    course = """({ data, codes, rule, beta, pointRate, codeRate, first, draws }) => {
        const Quantizer = document.querySelector(".vq-playground").Quantizer;
        const vq = new Quantizer({ data, codes, rule, beta, pointRate, codeRate });
        if (first) vq.startFromData(first);
        for (const draw of draws) vq.step(draw);
        return { ...vq, ...vq.measures() };
    }"""
    choices = {"rule": rule, "beta": BETA, "pointRate": POINT_RATE, "codeRate": CODE_RATE}
    given = {"data": data.tolist(), "codes": start.tolist(), "draws": [draw.tolist() for draw in draws]}
    ours = shown.evaluate(course, choices | given | {"first": first_draw.tolist() if init == "data" else None})
    theirs = course_in_torch(monkeypatch, rule, init, data, start, first_draw, draws)
    if init == "uniform":
        assert (ours["restarts"] > 0) == (rule == "restart")
    for name, value in theirs.items():
        found = torch.tensor(ours[name], dtype=torch.float64)
        assert (found - value).abs().max() < 1e-9, name


def active_codes(page) -> int:
    return int(re.search(r"(\d+) of \d+ codes", page.inner_text(".status")).group(1))


def test_a_bad_start_collapses_and_a_restart_rescues_it(shown):
    shown.select_option(".start", "corner")
    for _ in range(40):
        shown.click(".once")
    collapsed = active_codes(shown)
    before = shown.get_attribute(".picture .used", "d")
    shown.select_option(".rule", "restart")
    restarts = []
    for _ in range(40):
        shown.click(".once")
        restarts.append(shown.evaluate("document.querySelector('.vq-playground').quantizer.restarts"))
    assert collapsed <= 6
    assert active_codes(shown) >= 15
    assert restarts[20] == restarts[-1] >= 16 - collapsed  # restarted codes stay in use
    assert shown.get_attribute(".picture .used", "d") != before
    assert "Step 80" in shown.get_attribute(".picture", "aria-label")


def test_the_keyboard_alone_suffices(shown):
    """Tab reaches every control, arrows move sliders and lists, Space presses buttons; the description follows."""
    reached, picture = [], shown.locator(".picture")
    for _ in range(10):
        shown.keyboard.press("Tab")
        reached.append(shown.evaluate("document.activeElement.className"))
        if reached[-1] == "K":
            shown.keyboard.press("ArrowRight")
            assert "of 17 codes" in picture.get_attribute("aria-label")
        if reached[-1] == "once":
            shown.keyboard.press("Space")
            assert picture.get_attribute("aria-label").startswith("Step 1:")
        if reached[-1] == "source":
            shown.keyboard.press("ArrowDown")
    assert reached == ["play", "once", "reset", "source", "start", "rule", "K", "beta", "speed", "which"]
    assert shown.input_value(".source") == "blobs"
    shown.focus(".play")
    shown.keyboard.press("Space")
    assert shown.inner_text(".play") == "Pause"
    shown.wait_for_function("document.querySelector('.vq-playground').quantizer.updates > 2")
    shown.keyboard.press("Space")
    assert shown.inner_text(".play") == "Play"


def test_own_points_come_from_clicks_and_from_the_keyboard(shown):
    shown.select_option(".source", "own")
    assert shown.is_disabled(".once")
    box = shown.locator(".picture").bounding_box()
    shown.mouse.click(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    shown.fill(".x", "1.6")
    shown.press(".add", "Enter")
    added = shown.evaluate("document.querySelector('.vq-playground').quantizer.data")
    assert len(added) == 16
    clicked, typed = torch.tensor(added).view(2, 8, 2).mean(1)
    torch.testing.assert_close(clicked, torch.tensor([-1.6, 0.0]), atol=0.2, rtol=0)
    torch.testing.assert_close(typed, torch.tensor([1.6, 0.0]), atol=0.2, rtol=0)
    shown.click(".once")
    assert "Step 1: 16 points" in shown.inner_text(".status")


def test_a_click_chooses_the_nearest_point(shown):
    place = shown.evaluate("document.querySelector('.vq-playground').quantizer.points[41]")
    box = shown.locator(".picture").bounding_box()
    x, y = (0.5 + place[0] / 6.4) * box["width"], (0.5 - place[1] / 6.4) * box["height"]
    shown.mouse.click(box["x"] + x, box["y"] + y)
    assert shown.input_value(".which") == "42"
    assert shown.inner_text(".pulls").startswith("Point 42 ")


def test_two_playgrounds_in_a_page_do_not_meddle(page):
    page.set_content(SHELL.format(theme="light", html=playground().data + playground().data))
    page.locator(".once").first.click()
    updates = page.evaluate("[...document.querySelectorAll('.vq-playground')].map((one) => one.quantizer.updates)")
    assert updates == [1, 0]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_no_accessibility_violation_and_no_sideways_scroll(page, theme, width, scripts):
    page.set_viewport_size({"width": width, "height": 844})
    page.set_content(SHELL.format(theme=theme, html=playground().data))
    page.click(".once")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.add_script_tag(path=vendor.AXE)
    found = page.evaluate("axe.run()")
    assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []
