"""The playground of chapter 2 computes what the library computes, and the keyboard alone suffices to use it."""

from __future__ import annotations

import itertools
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
    optimizer = torch.optim.SGD([group for group in groups if group["params"]])
    for drawn in draws:  # noqa: B007, randperm returns it
        optimizer.zero_grad()
        (F.mse_loss(points, data) + vq(points).loss).backward()
        optimizer.step()
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


def state(page, expression: str):
    """What an expression of `vq` and its page's `root` comes to."""
    given = "const root = document.querySelector('.vq-playground'), vq = root.quantizer"
    return page.evaluate(f"(() => {{ {given}; return {expression}; }})()")


def steps(page, count: int) -> None:
    page.evaluate("(n) => { for (; n > 0; n--) document.querySelector('.once').click(); }", count)


def active_codes(page) -> int:
    return int(re.search(r"(\d+) of \d+ codes", page.inner_text(".status")).group(1))


@pytest.mark.parametrize(
    ("start", "rule", "active"),
    [("corner", "ema", 4), ("corner", "restart", 16), ("corner", "gradient", 2), ("data", "ema", 16)],
)
def test_codes_in_use_are_as_many_as_the_chapter_says(shown, start, rule, active):
    shown.select_option(".start", start)
    shown.select_option(".rule", rule)
    steps(shown, 150)
    assert active_codes(shown) == active


def at(page, place) -> tuple[float, float]:
    """Where on the screen a place in the plane is."""
    box = page.locator(".picture").bounding_box()
    return box["x"] + (0.5 + place[0] / 6.4) * box["width"], box["y"] + (0.5 - place[1] / 6.4) * box["height"]


def test_a_code_is_dragged_by_the_mouse_and_stays_in_the_hand_while_the_run_goes_on(shown):
    shown.select_option(".start", "data")
    code = state(shown, "vq.codes[6]")
    shown.mouse.move(*at(shown, code))
    shown.mouse.down()
    shown.mouse.move(*at(shown, (0.3, 0.2)), steps=3)
    steps(shown, 3)
    assert state(shown, "vq.codes[6]") == pytest.approx([0.3, 0.2], abs=0.02)
    shown.mouse.move(*at(shown, (9, 0.2)))
    assert state(shown, "vq.codes[6]") == pytest.approx([3.1, 0.2], abs=0.02)  # never out of sight
    shown.mouse.up()
    assert "Code 7" in shown.inner_text(".said") and shown.input_value(".code") == "7"
    assert shown.input_value(".which") == "1"  # a grasp is not a click on a point
    steps(shown, 1)
    released = state(shown, "vq.codes[6]")
    shown.mouse.move(*at(shown, (0, 0)))
    assert state(shown, "vq.codes[6]") == released
    assert shown.get_attribute(".trail", "d").count("M") == 16


def test_a_finger_drags_a_code_and_not_the_page(browser):
    page = browser.new_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page.set_content(SHELL.format(theme="light", html=playground().data) + "<p style='height: 2000px'>")
    page.select_option(".start", "data")
    code, touch = state(page, "vq.codes[0]"), page.context.new_cdp_session(page)
    (x, y), ends = at(page, code), at(page, (code[0] / 2, code[1] / 2))
    for kind, *place in (("Start", x, y), ("Move", (x + ends[0]) / 2, (y + ends[1]) / 2), ("Move", *ends), ("End",)):
        points = [{"x": place[0], "y": place[1]}] if place else []
        touch.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})
    assert state(page, "vq.codes[0]") == pytest.approx([value / 2 for value in code], abs=0.05)
    assert page.evaluate("scrollY") == 0
    page.close()


def test_the_arrow_keys_move_the_chosen_code(shown):
    before = state(shown, "vq.codes")
    shown.focus(".picture")
    for key in ("PageDown", "PageDown", "PageUp", "ArrowRight", "ArrowUp", "Shift+ArrowUp"):
        shown.keyboard.press(key)
    after = state(shown, "vq.codes")
    assert after[1] == pytest.approx([before[1][0] + 0.1, before[1][1] + 0.12])
    assert [*after[:1], *after[2:]] == [*before[:1], *before[2:]]
    assert "Code 2 is at" in shown.inner_text(".spoken")


def test_neighboring_cells_differ_in_color(shown):
    shown.select_option(".start", "data")
    shown.fill(".K", "32")
    color = "[...root.querySelectorAll('.used path')].findIndex((layer) => layer.isPointInFill(new DOMPoint(x, y)))"
    for _ in range(10):
        steps(shown, 1)
        codes = torch.tensor(state(shown, "vq.codes"))
        colors = state(shown, f"vq.codes.map((e) => [200 + e[0] * 62.5, 200 - e[1] * 62.5]).map(([x, y]) => {color})")
        for j, k in itertools.combinations(range(32), 2):
            nearest = (codes - (codes[j] + codes[k]) / 2).norm(dim=1).topk(2, largest=False).indices
            if {*nearest.tolist()} == {j, k}:  # the cells meet between them
                assert colors[j] != colors[k] or colors[j] < 0


def test_decay_and_threshold_are_shown_for_the_rules_that_have_them_and_take_effect(shown):
    for rule, sliders in (("gradient", []), ("ema", ["decay"]), ("restart", ["decay", "threshold"])):
        shown.select_option(".rule", rule)
        assert [name for name in ("decay", "threshold") if shown.is_visible(f".{name}")] == sliders
    shown.fill(".decay", "0.5")
    shown.fill(".threshold", "0")
    assert state(shown, "[vq.decay, vq.threshold]") == [0.5, 0]
    shown.select_option(".start", "corner")
    steps(shown, 20)
    assert state(shown, "vq.restarts") == 0  # no share is below 0
    shown.fill(".threshold", "0.5")
    steps(shown, 5)
    assert state(shown, "vq.restarts") > 0


def test_the_status_keeps_up_with_the_animation_and_screen_readers_are_not_flooded(shown):
    shown.evaluate(
        """() => {
        window.lines = {};
        for (const name of ["status", "spoken"]) {
            window.lines[name] = new Set();
            const watch = () => window.lines[name].add(document.querySelector("." + name).textContent);
            new MutationObserver(watch).observe(document.querySelector("." + name), { childList: true });
        }
    }"""
    )
    shown.fill(".speed", "30")
    shown.click(".play")
    shown.wait_for_function("document.querySelector('.vq-playground').quantizer.updates > 40")
    status, updates = state(shown, "[root.querySelector('.status').textContent, vq.updates]")
    assert status.startswith(f"Step {updates}:")
    status, spoken = shown.evaluate("[window.lines.status.size, window.lines.spoken.size]")
    assert status > 4 * spoken


def test_less_motion_is_a_picture_per_second_and_the_last_one_at_a_pause(shown):
    shown.emulate_media(reduced_motion="reduce")
    shown.fill(".speed", "60")
    shown.evaluate(
        """() => {
        window.drawn = 0;
        new MutationObserver(() => window.drawn++).observe(document.querySelector(".status"), { childList: true });
    }"""
    )
    shown.click(".play")
    shown.wait_for_function("document.querySelector('.vq-playground').quantizer.updates > 90")
    assert shown.evaluate("window.drawn") <= 4
    shown.click(".play")
    assert shown.inner_text(".status").startswith(f"Step {state(shown, 'vq.updates')}:")


def test_what_a_change_resets_is_said(shown):
    steps(shown, 3)
    for act, updates in (
        (lambda: shown.fill(".beta", "1"), 3),
        (lambda: shown.select_option(".rule", "gradient"), 3),
        (lambda: shown.fill(".K", "9"), 0),
        (lambda: shown.select_option(".start", "corner"), 0),
        (lambda: shown.select_option(".source", "spiral"), 0),
    ):
        act()
        said = shown.inner_text(".said")
        assert state(shown, "vq.updates") == updates
        assert ("continues" in said) == (updates > 0) and ("start over" in said) == (updates == 0)
        assert said in shown.inner_text(".spoken")
        steps(shown, 3 - updates)


def test_on_a_phone_the_plane_stays_in_view_beside_every_control(page):
    page.set_viewport_size({"width": 390, "height": 760})
    page.set_content(SHELL.format(theme="light", html=playground().data) + "<p style='height: 2000px'>")
    page.select_option(".rule", "restart")
    for name in ("source", "K", "beta", "speed", "which", "code", "decay", "threshold"):
        page.locator(f".{name}").evaluate("(one) => one.scrollIntoView({ block: 'end' })")
        plane, control = (page.locator(f".{one}").bounding_box() for one in ("picture", name))
        assert plane["y"] >= 0
        assert plane["y"] + plane["height"] <= control["y"] and control["y"] + control["height"] <= 761


def test_a_bad_start_collapses_and_a_restart_rescues_it(shown):
    shown.select_option(".start", "corner")
    steps(shown, 40)
    collapsed = active_codes(shown)
    before = shown.inner_html(".picture .used")
    shown.select_option(".rule", "restart")
    restarts = []
    for _ in range(40):
        steps(shown, 1)
        restarts.append(state(shown, "vq.restarts"))
    assert collapsed <= 6
    assert active_codes(shown) >= 15
    assert restarts[20] == restarts[-1] >= 16 - collapsed  # restarted codes stay in use
    assert shown.inner_html(".picture .used") != before
    assert "Step 80" in shown.get_attribute(".picture", "aria-label")


def test_the_keyboard_alone_suffices(shown):
    """Tab reaches every control, arrows move sliders and lists, Space presses buttons; the description follows."""
    reached, picture = [], shown.locator(".picture")
    for _ in range(13):
        shown.keyboard.press("Tab")
        reached.append(shown.evaluate("document.activeElement.getAttribute('class')"))
        if reached[-1] == "K":
            shown.keyboard.press("ArrowRight")
            assert "of 17 codes" in picture.get_attribute("aria-label")
        if reached[-1] == "once":
            shown.keyboard.press("Space")
            assert picture.get_attribute("aria-label").startswith("Step 1:")
        if reached[-1] == "source":
            shown.keyboard.press("ArrowDown")
    sliders = ["K", "beta", "speed", "which", "code", "decay"]
    assert reached == ["picture", "play", "once", "reset", "source", "start", "rule", *sliders]
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
    for act, count in (("clear", 0), ("undo", 16), ("undo", 8), ("undo", 0)):
        shown.click(f".{act}")
        assert state(shown, "vq.data.length") == count
    assert shown.is_disabled(".undo")
    shown.click(".add")
    for source, count in (("ring", 240), ("own", 8)):  # kept meanwhile
        shown.select_option(".source", source)
        assert state(shown, "vq.data.length") == count


def test_a_click_chooses_the_nearest_point(shown):
    shown.mouse.click(*at(shown, state(shown, "vq.points[41]")))
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
