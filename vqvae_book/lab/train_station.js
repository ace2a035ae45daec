// Train: a VQ-VAE learns in the page. Up to four runs side by side, each in a thread of its own; settings are an address.
import { DEFAULTS, RULES, TROUBLE } from "./train.js";
import { glyphData, sheetData } from "./train_data.js";
import { button, element as make } from "./ui.js";

const MOST = 4, COLORS = ["--blue", "--orange", "--green", "--purple"], DASHES = ["", "7 3", "2 3", "9 3 2 3"];
const FIELDS = { // name: [label, values or {value: text}, at the start]
  num_embeddings: ["Codes K", [8, 16, 32, 64, 128, 256, 512]],
  commitment_cost: ["Weight β", [0, 0.05, 0.1, 0.25, 0.5, 1, 2, 4]],
  rule: ["Update rule", { gradient: "gradient", ema: "EMA", restart: "EMA with restart" }],
  init: ["Start", { data: "data, by k-means", uniform: "uniform" }],
  lr: ["Learning rate", [0.0001, 0.001, 0.003, 0.01, 0.03, 0.1, 1]],
  schedule: ["Schedule", { one_cycle: "one cycle", constant: "constant" }],
  embedding_dim: ["Length D", [4, 8, 16, 32]],
  hidden_dim: ["Width", [16, 32, 64]],
  batch_size: ["Batch", [16, 32, 64, 128]],
  steps: ["Steps", [100, 300, 1000, 3000]],
  seed: ["Seed", [0, 1, 2, 3, 4, 5, 6, 7]],
  data: ["Images", { mnist: "MNIST", glyphs: "glyphs (synthetic digits)", drawing: "MNIST and your drawing" }],
};
const START = { ...DEFAULTS, rule: "restart", data: "mnist" };
const MEASURES = { // of a chart: [label, whether the scale is logarithmic]
  normalized_mse: ["Test error", true], recon_loss: ["Reconstruction term", true], vq_loss: ["Quantizer's terms", true],
  codes: ["Codes in use", false], perplexity: ["Perplexity", false], z_length: ["Mean ‖z_e‖", true],
};
const STYLE = `
.vq-train { --green: #1f7457; --purple: #7d4c9c; }
html[data-theme="dark"] .vq-train, body[data-jp-theme-light="false"] .vq-train { --green: #6fcfa9; --purple: #c9a0e4; }
.vq-train .fields { display: grid; gap: 0.3rem 0.8rem; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); }
.vq-train .fields label { align-items: stretch; display: flex; flex-direction: column; gap: 0; }
.vq-train .fields select { min-width: 0; width: 100%; }
.vq-train .runs { display: grid; gap: 0.8rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 13rem), 1fr)); }
.vq-train .run { border-top: 4px solid var(--own); min-width: 0; padding-top: 0.3rem; }
.vq-train .run h4 { font-size: 1em; margin: 0; }
.vq-train canvas { background: #000; display: block; image-rendering: pixelated; width: 100%; }
.vq-train dl { display: grid; gap: 0 0.6rem; grid-template-columns: 1fr auto; margin: 0.3rem 0; }
.vq-train dd { font-variant-numeric: tabular-nums; margin: 0; text-align: right; }
.vq-train dt { font-weight: 400; }
.vq-train .chart { display: block; height: auto; width: 100%; }
.vq-train .chart path { fill: none; stroke-width: 2.5; }
.vq-train .run p { margin: 0.3rem 0; }
.vq-train .chart .axis { stroke: var(--line); stroke-width: 1; }
.vq-train .chart text { fill: var(--soft); font-size: 12px; }
.vq-train .trouble { color: var(--orange); font-weight: 600; min-height: 0; }`;

const short = (value) => (value === undefined ? "–" : value >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3))));

/** Gray tiles of `side` pixels, `columns` in a row, on a canvas that is as large as they need. */
function tiles(canvas, bytes, side, columns) {
  const count = bytes.length / side ** 2, gap = 1, cell = side + gap;
  canvas.width = columns * cell - gap;
  canvas.height = Math.ceil(count / columns) * cell - gap;
  const image = new ImageData(canvas.width, canvas.height);
  bytes.forEach((value, i) => {
    const n = Math.floor(i / side ** 2), x = (n % columns) * cell + (i % side);
    const y = Math.floor(n / columns) * cell + (Math.floor(i / side) % side);
    image.data.set([value, value, value, 255], 4 * (y * canvas.width + x));
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** The settings that an address carries: "#train?num_embeddings=32&…"; settings it doesn't name keep their starting values. */
export function settingsFrom(hash) {
  const given = new URLSearchParams(hash.split("?")[1] ?? ""), settings = {};
  for (const [name, [, choices]] of Object.entries(FIELDS)) {
    const allowed = Array.isArray(choices) ? choices.map(String) : Object.keys(choices), value = given.get(name);
    const chosen = allowed.includes(value) ? value : String(START[name]);
    settings[name] = Array.isArray(choices) ? Number(chosen) : chosen;
  }
  return settings;
}

export const addressOf = (settings) =>
  `#train?${new URLSearchParams(Object.entries(settings).filter(([name, value]) => String(value) !== String(START[name])))}`;

/** The station in `root`. It uses say(text), state.image and use(name, about, tensors) of `lab`, if it has them. */
export function mount(root, lab = {}) {
  const say = lab.say ?? ((text) => (spoken.textContent = text));
  const spoken = make("p", { class: "spoken", role: "status" }), said = make("p", { class: "said" });
  const runs = [], selects = {}, data = {};
  let count = 0; // of all runs; a number is not used again
  const form = make("div", { class: "fields", role: "group", "aria-label": "Settings of the next run" });
  for (const [name, [label, choices]] of Object.entries(FIELDS)) {
    const pairs = Array.isArray(choices) ? choices.map((value) => [value, value]) : Object.entries(choices);
    selects[name] = make("select", { "aria-label": label, on: { change: share } }, ...pairs.map(([value, text]) => make("option", { value, text })));
    form.append(make("label", { text: label }, selects[name]));
  }
  const train = button("Train", () => add().catch((error) => (said.textContent = error.message)));
  const measure = make("select", { "aria-label": "Chart", on: { change: draw } }, ...Object.entries(MEASURES).map(([value, [text]]) => make("option", { value, text })));
  const chart = make("div"), shown = make("div", { class: "runs" });
  root.classList.add("vq-train");
  root.append(make("style", { text: STYLE }), make("p", { text: "Train a small VQ-VAE here, in your browser: choose settings and press Train. Up to four runs are shown side by side." }), form, make("div", { class: "controls" }, train, make("label", { text: "Chart" }, measure)), said, chart, shown,
    make("p", { class: "hint", text: "Test error: the share of the variance that is lost; it is 1 for the best constant gray. Quantizer's terms: the mean squared distance between vectors and codes, times 1 + β under the gradient rule and times β under EMA. " +
      "Perplexity: how many equally frequent codes would have the same entropy. ‖z_e‖: the length of the encoder's vectors." }));
  if (!lab.say) root.append(spoken);
  const chosen = () => Object.fromEntries(Object.keys(FIELDS).map((name) => [name, Array.isArray(FIELDS[name][1]) ? Number(selects[name].value) : selects[name].value]));
  const choose = (settings) => Object.entries(settings).forEach(([name, value]) => (selects[name].value = value));

  function share() {
    history.replaceState(null, "", addressOf(chosen()));
  }

  /** Pictures by name, fetched or drawn once. Where the site has no MNIST, glyphs take its place, and a message says so. */
  async function pictures(name) {
    if (name !== "glyphs") data.mnist ??= await sheetData(new URL("mnist.png", import.meta.url)).catch(() => null);
    if (name === "glyphs" || !data.mnist) data.glyphs ??= glyphData();
    if (name !== "glyphs" && !data.mnist) said.textContent = "MNIST is missing on this site, so glyphs are used instead.";
    const found = (name === "glyphs" ? null : data.mnist) ?? data.glyphs, image = lab.state?.image;
    if (name !== "drawing") return found;
    if (!image) throw new Error("There is no drawing yet: make one under Draw and encode.");
    const copies = new Uint8Array(64 * 784).map((_, i) => 255 * image[i % 784]);
    const joined = new Uint8Array(found.train.length + copies.length);
    joined.set(found.train);
    joined.set(copies, found.train.length);
    return { train: joined, test: found.test };
  }

  async function add() {
    if (runs.length === MOST) throw new Error(`No more than ${MOST} runs fit here: remove one first.`);
    said.textContent = "";
    const settings = chosen();
    train.disabled = true;
    const sheets = await pictures(settings.data).finally(() => (train.disabled = false));
    runs.push(card(settings, sheets));
    runs.at(-1).start(true);
  }

  function card(settings, sheets) {
    const place = [0, 1, 2, 3].find((n) => !runs.some((run) => run.place === n)), name = `Run ${++count}`;
    const worker = new Worker(new URL("./train_worker.js", import.meta.url), { type: "module" });
    const different = Object.entries(settings).filter(([key, value]) => ["num_embeddings", "commitment_cost", "rule"].includes(key) || value !== START[key]);
    const about = different.map(([key, value]) => `${FIELDS[key][0]} ${FIELDS[key][1][value] && !Array.isArray(FIELDS[key][1]) ? FIELDS[key][1][value] : value}`).join(", ");
    const numbers = make("dl"), trouble = make("p", { class: "trouble" });
    const redrawn = make("canvas", { role: "img" }), sheet = make("canvas", { role: "img" });
    const run = { place, name, settings, history: [], times: [], going: false, worker };
    const pause = button("Pause", () => go(!run.going));
    const step = button("Step", () => {
      go(false);
      worker.postMessage({ step: true });
    });
    const use = button("Draw with it", () => {
      go(false);
      worker.postMessage({ keep: true });
    });
    const node = make("section", { class: "run", "aria-label": name, style: `--own: var(${COLORS[place]})` }, make("h4", { text: name }),
      make("p", { class: "hint", text: about }),
      make("div", { class: "controls" }, pause, step, button("Reset", () => run.start(false)), ...(lab.use ? [use] : []), button("Remove", remove)),
      trouble, numbers, make("p", { class: "hint", text: "Test images, reconstructions, and what each code draws:" }), redrawn, make("p"), sheet);
    shown.append(node);

    function go(on) {
      run.going = on;
      if (on) said.textContent = "";
      pause.textContent = on ? "Pause" : "Resume";
      worker.postMessage({ go: on });
    }
    run.start = (on) => {
      Object.assign(run, { history: [], times: [], said: -1, named: "" });
      const { rule, data: _, ...rest } = settings;
      pause.disabled = step.disabled = false;
      worker.postMessage({ start: { ...rest, ...RULES[rule] }, data: sheets });
      go(on);
    };
    run.pause = () => run.going && go(false);
    function remove() {
      worker.terminate();
      node.remove();
      runs.splice(runs.indexOf(run), 1);
      draw();
      train.focus();
    }
    worker.onerror = (event) => (trouble.textContent = event.message ?? "The run's thread has ended.");
    worker.onmessage = ({ data: { entry, shown: seen, troubles, ended, done, ms, error, kept, meanPicture } }) => {
      if (error) trouble.textContent = error;
      if (kept) lab.use(name, kept.about, kept.tensors);
      if (!entry) return;
      run.history.push(entry);
      if (ms) run.times.push(ms);
      const values = { Step: `${entry.step} of ${settings.steps}`, "Time per step": ms ? `${ms.toFixed(0)} ms` : "–" };
      for (const [key, [label]] of Object.entries(MEASURES)) values[label] = short(entry[key]);
      values["Codes in use"] += ` of ${settings.num_embeddings}`;
      numbers.replaceChildren(...Object.entries(values).flatMap(([key, value]) => [make("dt", { text: key }), make("dd", { text: value })]));
      const words = (key) => TROUBLE[key][0].replace("{}", short(meanPicture));
      trouble.replaceChildren(...troubles.map((key) => {
        const [, page, section] = TROUBLE[key];
        return make("span", { text: `${words(key)} ` }, make("a", { href: new URL(`${page}.html#${section}`, location.href), text: "Why?" }), " ");
      }));
      tiles(redrawn, Uint8Array.from([...seen.originals, ...seen.pictures]), 28, seen.originals.length / 784);
      tiles(sheet, seen.sheet, 4, settings.num_embeddings > 128 ? 32 : 16);
      redrawn.setAttribute("aria-label", `${name}: eight test images, and below them their reconstructions after ${entry.step} steps`);
      sheet.setAttribute("aria-label", `${name}: what each of the ${settings.num_embeddings} codes draws`);
      const named = troubles.map(words).join(" "), quarter = Math.floor((4 * entry.step) / settings.steps);
      if (quarter !== run.said || named !== run.named)
        say(`${name}, step ${entry.step}: test error ${short(entry.normalized_mse)}, ${entry.codes} of ${settings.num_embeddings} codes in use. ${named}`);
      [run.said, run.named] = [quarter, named];
      if (ended) [run.going, pause.textContent] = [false, done ? "Done" : "Ended"];
      pause.disabled = step.disabled = ended;
      draw();
    };
    return run;
  }

  /** The chosen measure of all runs, over steps. */
  function draw() {
    const key = measure.value, [label, log] = MEASURES[key], W = chart.clientWidth || 640, H = 220, left = 52, bottom = 24;
    const lines = runs.map(({ place, name, history }) => [{ place, name }, history.map((entry) => [entry.step, entry[key]]).filter(([, value]) => Number.isFinite(value) && (!log || value > 0))]);
    const all = lines.flatMap(([, points]) => points);
    if (!all.length) return chart.replaceChildren();
    const scale = log ? Math.log : (value) => value, most = Math.max(...runs.map((run) => run.settings.steps));
    const high = Math.max(...all.map(([, value]) => value)), low = log ? Math.min(...all.map(([, value]) => value)) : 0;
    const at = ([step, value]) => {
      const share = (scale(value) - scale(low || (log ? high : 0))) / (scale(high) - scale(low || (log ? high : 0)) || 1);
      return `${(left + ((W - left - 6) * step) / most).toFixed(1)} ${(H - bottom - (H - bottom - 10) * share).toFixed(1)}`;
    };
    const summary = lines.filter(([, points]) => points.length).map(([{ name }, points]) => `${name} ends at ${short(points.at(-1)[1])}`).join(", ");
    chart.innerHTML = `<svg class="chart" role="img" viewBox="0 0 ${W} ${H}"><path class="axis" d="M${left} 6V${H - bottom}H${W - 4}"/>
      <text x="${left - 4}" y="16" text-anchor="end">${short(high)}</text><text x="${left - 4}" y="${H - bottom}" text-anchor="end">${short(low)}</text>
      <text x="${W - 4}" y="${H - 6}" text-anchor="end">step ${most}</text>${lines.map(([{ place }, points]) => points.length &&
        `<path style="stroke: var(${COLORS[place]})" stroke-dasharray="${DASHES[place]}" d="M${points.map(at).join("L")}"/>`).join("")}</svg>`;
    chart.firstChild.setAttribute("aria-label", `${label} over steps${log ? ", logarithmic" : ""}: ${summary}`);
  }

  choose(settingsFrom(location.hash));
  addEventListener("resize", draw);
  addEventListener("hashchange", () => location.hash.startsWith("#train") && choose(settingsFrom(location.hash)));
  const stop = () => {
    if (runs.some((run) => run.going)) said.textContent = "Training was paused when you left. Press Resume to continue.";
    runs.forEach((run) => run.pause());
  };
  document.addEventListener("visibilitychange", () => document.hidden && stop());
  return { show() {}, stop, runs };
}
