// Let the prior write: codes fall one by one, in reading order, and the decoder draws what there is.
import { CELLS, PIXELS, SIDE } from "./models.js";
import { CodeGrid, button, element, figure, inkOn, inked, paintGray, picture, range } from "./ui.js";

const SHOWN = 8; // codes whose bars are shown
const PAUSE = 90; // milliseconds between codes

export function mount(root, lab) {
  const model = lab.written, { colors, K } = lab.listed.models[model], { state } = lab;
  const settings = { label: 3, temperature: 1, topP: 1, seed: 1 };
  let codes = Array(CELLS).fill(null), at = 0, bits = [], next = null, empty = null, playing = false;
  const grid = new CodeGrid("Codes that the prior writes, 7 by 7", (place) => choose(place));
  const drawn = picture("What the decoder makes of the codes so far"), bars = element("ol", { class: "bars" });
  const heading = element("p"), said = element("p", { class: "said" });
  const labels = Array.from({ length: 10 }, (_, label) => element("option", { value: label, text: label }));
  const label = element("select", { on: { change: () => set({ label: Number(label.value) }) } }, ...labels);
  const seed = element("input", { type: "number", min: 0, max: 999999, value: settings.seed, on: { change: () => set({ seed: Math.abs(Math.round(seed.value)) || 0 }) } });
  const percent = (p) => (p < 0.0005 ? "< 0.1%" : `${(100 * p).toFixed(1)}%`);
  const place = (p) => `row ${Math.floor(p / SIDE) + 1}, column ${(p % SIDE) + 1}`;

  const guarded = (act) => () => lab.guard(act);
  const [play, one, all] = [button("Play", () => (playing ? pause() : run())), button("Step", guarded(async () => {
    pause();
    await step(true);
  })), button("Write all", guarded(finish))];
  const redraw = button("Redraw from here", guarded(() => restart(grid.selected ?? 0)));
  const complete = button("Complete your drawing", guarded(completeDrawing)), told = element("p", { class: "hint" });

  label.value = settings.label;
  redraw.disabled = true; // until a cell is chosen

  // The picture of the codes so far: the rest is empty paper.
  async function show() {
    empty ??= (await lab.ask("encode", model, new Float32Array(PIXELS))).codes;
    grid.show(codes, colors, at < CELLS ? new Map([[at, "next"]]) : undefined);
    paintGray(drawn, await lab.ask("decode", model, codes.map((code, p) => code ?? empty[p])));
    const sum = bits.reduce((a, b) => a + b, 0);
    said.textContent = at < CELLS ? `${at} of ${CELLS} codes, ${sum.toFixed(1)} bits so far.` : `All ${CELLS} codes: ${sum.toFixed(1)} bits under the prior.`;
    [play, one, all].forEach((control) => (control.disabled = at === CELLS));
  }

  async function look() {
    next = at < CELLS ? await lab.ask("next", lab.prior, codes, settings, at) : null;
    heading.textContent = next ? `The next code, ${place(at)}:` : "Choose a cell, then press Redraw from here.";
    const order = next ? [...next.probabilities.keys()].sort((a, b) => next.probabilities[b] - next.probabilities[a]) : [];
    const row = (name, p, color) => {
      const chip = element("span", { text: name });
      if (color) Object.assign(chip.style, { background: color, color: inkOn(color) });
      const bar = element("i");
      bar.style.width = `${100 * p}%`;
      return element("li", {}, chip, bar, element("span", { text: percent(p) }));
    };
    const rest = order.slice(SHOWN).reduce((sum, k) => sum + next.probabilities[k], 0);
    bars.replaceChildren(...order.slice(0, SHOWN).map((k) => row(`code ${k}\u2002`, next.probabilities[k], colors[k])), ...(next ? [row("all others", rest)] : []));
  }

  async function step(aloud) {
    if (!next) await look();
    if (!next) return;
    const { code, probabilities, bits: price } = next;
    codes = codes.map((other, p) => (p === at ? code : other));
    bits[at] = price;
    if (aloud) lab.say(`Code ${code}, ${percent(probabilities[code])}, at ${place(at)}`);
    at += 1;
    next = null;
    await show();
    await look();
  }

  async function run() {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return lab.guard(finish);
    playing = true;
    play.textContent = "Pause";
    await lab.guard(async () => {
      while (playing && at < CELLS) {
        await step(false);
        await new Promise((done) => setTimeout(done, PAUSE));
      }
      if (at === CELLS) lab.say(said.textContent);
    });
    pause();
  }

  function pause() {
    playing = false;
    play.textContent = "Play";
  }

  async function finish() {
    pause();
    const start = performance.now();
    codes = await lab.ask("sample", lab.prior, codes, settings, at);
    root.dataset.milliseconds = performance.now() - start;
    bits = await lab.ask("bits", lab.prior, codes, settings.label);
    at = CELLS;
    await show();
    await look();
    lab.say(said.textContent);
  }

  // What is before a place stays; another seed draws the rest anew.
  async function restart(from) {
    pause();
    if (from < at) seed.value = settings.seed += 1;
    if (from === 0) told.textContent = "";
    at = Math.min(at, from);
    codes = codes.map((code, p) => (p < at ? code : null));
    bits = bits.slice(0, at);
    await show();
    await look();
  }

  async function set(change) {
    Object.assign(settings, change);
    await lab.guard(look);
  }

  function choose(p) {
    redraw.disabled = false;
    if (p < at) said.textContent = `Code ${codes[p]}, ${place(p)}: ${bits[p].toFixed(1)} bits.`;
    lab.say(grid.cells[p].ariaLabel);
  }

  // The upper four rows of codes are given, and the class that suits them best is taken.
  async function completeDrawing() {
    const { codes: own } = await lab.ask("encode", model, state.image), given = own.slice(0, 4 * SIDE);
    const { classes } = await lab.price(given);
    label.value = settings.label = classes.indexOf(Math.max(...classes));
    codes = own.map((code, p) => (p < given.length ? code : null));
    bits = await lab.ask("bits", lab.prior, given, settings.label);
    at = given.length;
    await show();
    await look();
    told.textContent = `The upper four rows are yours. The prior writes the rest, as the digit ${settings.label}, which fits them best.`;
    lab.say(told.textContent);
    run();
  }

  root.append(
    element("p", { text: `A PixelCNN chooses each of the 49 codes (K = ${K}) given the class and the codes before it. It never sees pixels: the decoder draws them.` }),
    element("div", { class: "controls" }, element("label", { text: "Digit" }, label), element("label", { text: "Seed" }, seed),
      range("Temperature", { min: 0.1, max: 2, step: 0.1, value: 1, show: (value) => value.toFixed(1) }, (temperature) => set({ temperature })),
      range("Top-p", { min: 0.05, max: 1, step: 0.05, value: 1, show: (value) => value.toFixed(2) }, (topP) => set({ topP }))),
    element("div", { class: "controls" }, play, one, all, button("Start over", guarded(() => restart(0))), redraw, complete),
    element("div", { class: "squares three" }, figure("codes, in reading order", grid.element, "codes"), figure("drawn from the codes so far", drawn),
      element("div", { class: "wide" }, heading, bars)),
    said, told,
  );
  grid.show(codes, colors, new Map([[0, "next"]]));
  paintGray(drawn, new Float32Array(PIXELS));
  heading.textContent = "Press Play, or Step for one code.";
  return {
    async show() {
      complete.disabled = !inked(state.image);
      complete.title = complete.disabled ? "Draw something first, under Draw and encode." : "";
      if (state.complete && complete.disabled) said.textContent = complete.title;
      else if (state.complete) await completeDrawing();
      state.complete = false;
    },
    stop: pause,
  };
}
