// The lab on its page: tabs, one station each, and the thread in which the models run.
import { logSoftmax } from "./tensor.js";
import { element } from "./ui.js";

// A station's module has mount(element, lab), which returns { show(), stop() }: they show it, and end all its work.
const STATIONS = {
  draw: ["Draw and encode", () => import("./draw.js")],
  edit: ["Edit codes", () => import("./edit.js")],
  write: ["Let the prior write", () => import("./write.js")],
  train: ["Train", () => import("./train_station.js")],
};

class Stopped extends Error {}

// What stations may use: `listed` (models and digits), `ask` (of the thread), `state` (what they share), `say`.
class Lab {
  constructor(root, listed) {
    Object.assign(this, { root, listed, waiting: new Map(), asked: 0, own: new Map() });
    const models = Object.entries(listed.models).filter(([, about]) => about.class === "VQVAE").sort(([, a], [, b]) => a.K - b.K);
    this.names = new Map(models.map(([name, { K }]) => [String(K), name])); // of the models, by what readers choose
    [this.prior, { of: this.written }] = Object.entries(listed.models).find(([, about]) => about.class === "PixelCNN") ?? [null, {}];
    this.state = { chosen: String(listed.models[this.written]?.K ?? models[0][1].K), image: null };
    this.spoken = element("p", { class: "spoken", role: "status" });
    this.trouble = element("p", { class: "said trouble" });
  }

  get choices() {
    return [...this.names.keys()];
  }

  name = (choice) => this.names.get(choice);
  about = (choice) => this.listed.models[this.name(choice)];
  say = (text) => (this.spoken.textContent = text);

  // Ask the thread. It starts at the first request, and a model is fetched when it is first needed.
  ask(method, ...given) {
    if (!this.worker) {
      this.worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
      this.worker.onmessage = ({ data: { id, value, error } }) => {
        const [done, failed] = this.waiting.get(id) ?? [];
        this.waiting.delete(id);
        if (error) failed?.(new Error(error));
        else done?.(value);
      };
      this.worker.onerror = ({ message }) => this.stop(new Error(message || "The lab's thread has ended."));
      for (const given of this.own) this.worker.postMessage({ method: "keep", given });
    }
    const id = ++this.asked;
    return new Promise((...pair) => {
      this.waiting.set(id, pair);
      this.worker.postMessage({ id, method, given });
    });
  }

  // A model that the reader trained, beside the shipped ones: what the page and the thread have to know about it.
  keep(name, about, tensors) {
    this.own.set(name, tensors);
    this.worker?.postMessage({ method: "keep", given: [name, tensors] });
    this.listed.models[name] = about;
    this.names.set(`${name}, ${about.K}`, name);
    this.state.chosen = `${name}, ${about.K}`;
  }

  // Bits of codes under the prior, all classes alike (-log2 of the mean of ten probabilities), and each class's share. One
  // class at a time, so that a stroke need not wait; null once it is no longer wanted.
  async price(codes, wanted = () => true) {
    const bits = [];
    for (let label = 0; label < 10; label++) {
      if (!wanted()) return null;
      bits.push((await this.ask("bits", this.prior, codes, label)).reduce((a, b) => a + b, 0));
    }
    const shares = logSoftmax(bits.map((value) => -value * Math.LN2));
    return { bits: bits[0] + shares[0] / Math.LN2 + Math.log2(10), classes: Array.from(shares, Math.exp) };
  }

  // End all work: a busy thread is terminated, and its open requests get an error.
  stop(error = new Stopped()) {
    if (!this.waiting.size) return;
    this.worker.terminate();
    this.worker = null;
    const waiting = [...this.waiting.values()];
    this.waiting.clear();
    for (const [, failed] of waiting) failed(error);
  }

  // A function that runs one call at a time: of the calls that arrive meanwhile, only the last one runs next.
  latest(act) {
    let busy = false, next = null;
    const run = async (...given) => {
      if (busy) {
        next = given;
        return;
      }
      busy = true;
      await this.guard(() => act(...given));
      busy = false;
      if (next) run(...[next, (next = null)][0]);
    };
    return run;
  }

  // Do something that may be stopped, and show what went wrong.
  async guard(act) {
    try {
      await act();
      this.trouble.textContent = "";
    } catch (error) {
      if (!(error instanceof Stopped)) this.trouble.textContent = `${error.message} Reload the page to try again.`;
    }
  }

  async digit(n) {
    this.digits ??= fetch(new URL("digits.bin", import.meta.url)).then((answer) => answer.arrayBuffer());
    return Float32Array.from(new Uint8Array(await this.digits, 784 * n, 784), (value) => value / 255);
  }
}

export async function start(root, only) {
  const answer = await fetch(new URL("lab.json", import.meta.url));
  if (!answer.ok) throw new Error(`lab.json: ${answer.status}`);
  const lab = new Lab(root, await answer.json()), bench = root.querySelector(".bench"), mounted = {};
  const names = (only ? [only] : Object.keys(STATIONS)).filter((name) => name !== "write" || lab.prior);
  const panels = Object.fromEntries(names.map((name) => [name, element("div", { id: `${root.id}-${name}`, class: `station ${name}`, hidden: "" })]));
  const tabs = names.map((name) => element("button", { type: "button", role: "tab", id: `${root.id}-tab-${name}`, "aria-controls": panels[name].id, text: STATIONS[name][0],
    on: { click: () => open(name) } }));
  let current = null;

  async function open(name) {
    if (current !== name) stop();
    current = name;
    names.forEach((other, i) => {
      tabs[i].setAttribute("aria-selected", other === name);
      tabs[i].tabIndex = other === name ? 0 : -1;
      panels[other].hidden = other !== name;
    });
    await lab.guard(async () => {
      mounted[name] ??= (await STATIONS[name][1]()).mount(panels[name], lab);
      await mounted[name].show();
    });
  }

  function stop() {
    mounted[current]?.stop();
    lab.stop();
  }

  lab.open = names.length > 1 ? open : null;
  lab.use = names.length > 1 ? (...model) => {
      lab.keep(...model);
      for (const name of ["draw", "edit"]) { // their choices have changed
        delete mounted[name];
        panels[name].replaceChildren();
      }
      open("draw");
      tabs[0].focus();
    } : null;
  if (names.length > 1) {
    const list = element("div", { class: "tabs", role: "tablist", "aria-label": "Stations of the lab" }, ...tabs);
    list.addEventListener("keydown", (event) => {
      const at = names.indexOf(current), last = names.length - 1;
      const to = { ArrowLeft: at ? at - 1 : last, ArrowRight: at < last ? at + 1 : 0, Home: 0, End: last }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      open(names[to]);
      tabs[to].focus();
    });
    names.forEach((name, i) => {
      panels[name].setAttribute("role", "tabpanel");
      panels[name].setAttribute("aria-labelledby", tabs[i].id);
    });
    bench.append(list);
  }
  bench.append(...Object.values(panels), lab.trouble, lab.spoken);
  document.addEventListener("visibilitychange", () => document.hidden && stop());
  addEventListener("pagehide", stop);
  const asked = location.hash.slice(1).split("?")[0].replace("station-", ""); // the rest is of the station
  await open(names.includes(asked) ? asked : names[0]);
  root.querySelector(".without").hidden = true;
  bench.hidden = false;
  root.lab = lab; // for tests and for the console
}
