// What the stations share: elements, pictures, a grid of codes, a pad to draw on.
import { SIDE, CELLS, PIXELS } from "./models.js";

export const WIDTH = 28;

export function element(name, { text = "", on = {}, ...attributes } = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined) made.setAttribute(key, value);
  for (const [event, act] of Object.entries(on)) made.addEventListener(event, act);
  made.append(text, ...children);
  return made;
}

export const button = (text, act) => element("button", { type: "button", text, on: { click: act } });

// A labeled range whose value stands beside it.
export function range(text, { min, max, step, value, show = String }, act) {
  const input = element("input", { type: "range", min, max, step, value, "data-lm-suppress-shortcuts": "true" });
  const shown = element("span", { class: "value" });
  const update = () => {
    shown.textContent = show(Number(input.value));
    input.setAttribute("aria-valuetext", shown.textContent);
  };
  input.addEventListener("input", () => {
    update();
    act(Number(input.value));
  });
  update();
  return Object.assign(element("label", { text }, input, shown), { input, update });
}

export function radios(legend, name, values, chosen, act) {
  const choices = values.map((value) => {
    const input = element("input", { type: "radio", name, value, on: { change: () => act(value) } });
    input.checked = value === chosen;
    return element("label", {}, input, String(value));
  });
  return element("fieldset", {}, element("legend", { text: legend }), ...choices);
}

export const inked = (image) => image?.some((value) => value > 0.1);
export const mse = (a, b) => a.reduce((sum, value, i) => sum + (value - b[i]) ** 2, 0) / a.length;
export const decimal = (value) => value.toFixed(4).replace(/^0/, "");
export const picture = (label) => element("canvas", { role: "img", "aria-label": label, width: WIDTH, height: WIDTH });
export const figure = (caption, content, kind = "") =>
  element("figure", { class: kind }, element("div", { class: "square" }, content), element("figcaption", { text: caption }));

// Pixels in [0, 1] on a canvas, each as the color that `color` makes of its number.
export function paint(canvas, count, color, width = WIDTH) {
  const height = count / width, image = new ImageData(width, height);
  if (canvas.width !== width) [canvas.width, canvas.height] = [width, height];
  for (let i = 0; i < count; i++) image.data.set([...color(i), 255], 4 * i);
  canvas.getContext("2d").putImageData(image, 0, 0);
}

export function paintGray(canvas, pixels, width) {
  paint(canvas, pixels.length, (i) => Array(3).fill(255 * pixels[i]), width);
}

// What is too bright in orange, what is too dark in blue; from half the range up, the color is full.
export function paintDifference(canvas, pixels, truth) {
  paint(canvas, pixels.length, (i) => {
    const change = pixels[i] - truth[i], share = Math.min(1, 2 * Math.abs(change));
    return (change > 0 ? [200, 90, 0] : [0, 70, 170]).map((full) => 252 + share * (full - 252));
  });
}

// Black or white, whichever is easier to read on a color "#rrggbb".
export function inkOn(color) {
  const [r, g, b] = [1, 3, 5].map((at) => (parseInt(color.slice(at, at + 2), 16) / 255) ** 2.2);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 ? "#000" : "#fff";
}

// A grid of 7 x 7 codes: the tab key reaches one cell, and arrow keys go from cell to cell.
export class CodeGrid {
  constructor(label, choose) {
    this.choose = choose;
    this.cells = Array.from({ length: CELLS }, (_, place) => element("td", { role: "gridcell", tabindex: place ? -1 : 0, "data-lm-suppress-shortcuts": "true",
      on: { click: () => this.select(place), focus: () => this.#reach(place) } }));
    const rows = Array.from({ length: SIDE }, (_, i) => element("tr", { role: "row" }, ...this.cells.slice(i * SIDE, (i + 1) * SIDE)));
    this.element = element("table", { class: choose ? "grid live" : "grid", role: "grid", "aria-label": label }, element("tbody", { role: "rowgroup" }, ...rows));
    this.element.addEventListener("keydown", (event) => this.#key(event));
    this.selected = null;
    this.reached = 0;
  }

  // Codes (null: not written yet) in the colors of their model; marked cells get an outline and a word.
  show(codes, colors, marked = new Map()) {
    this.cells.forEach((cell, place) => {
      const code = codes[place], open = code === null || code === undefined;
      const mark = marked.get(place);
      cell.textContent = open ? "" : code;
      cell.className = [open ? "open" : "", mark ? "marked" : ""].join(" ").trim();
      cell.style.background = open ? "" : colors[code];
      cell.style.color = open ? "" : inkOn(colors[code]);
      const where = `row ${Math.floor(place / SIDE) + 1}, column ${(place % SIDE) + 1}`;
      cell.setAttribute("aria-label", `${open ? "no code yet" : `code ${code}`}, ${where}${mark ? `, ${mark}` : ""}`);
    });
  }

  select(place) {
    if (!this.choose) return;
    this.selected = place;
    this.cells.forEach((cell, p) => cell.setAttribute("aria-selected", p === place));
    this.#reach(place);
    this.choose(place);
  }

  #reach(place) {
    this.cells[this.reached].tabIndex = -1;
    this.cells[(this.reached = place)].tabIndex = 0;
  }

  #key(event) {
    const row = Math.floor(this.reached / SIDE), column = this.reached % SIDE;
    const to = {
      ArrowUp: [row - 1, column], ArrowDown: [row + 1, column], ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1],
      Home: [row, 0], End: [row, SIDE - 1],
    }[event.key];
    if (!to && event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    if (to) this.cells[to.map((n) => Math.min(SIDE - 1, Math.max(0, n))).reduce((i, j) => i * SIDE + j)].focus();
    else this.select(this.reached);
  }
}

// A pad of 28 x 28 pixels for mouse, finger, pen and keys; `changed` is told of every stroke.
export class Pad {
  constructor(changed, said) {
    Object.assign(this, { changed, said, image: new Float32Array(PIXELS), past: [], at: [14, 14], down: false });
    this.canvas = element("canvas", { class: "pad", width: WIDTH, height: WIDTH, tabindex: 0, role: "application", "data-lm-suppress-shortcuts": "true",
      "aria-label": "Drawing pad, 28 by 28 pixels. Arrow keys move the pen, Space lowers and lifts it, Delete clears." });
    this.cursor = element("div", { class: "cursor" });
    this.canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      this.canvas.setPointerCapture(event.pointerId);
      this.#keep();
      this.#line((this.last = this.#place(event)));
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (!this.last) return;
      for (const part of event.getCoalescedEvents?.() ?? [event]) this.#line(this.last, (this.last = this.#place(part)));
    });
    for (const name of ["pointerup", "pointercancel"]) this.canvas.addEventListener(name, () => (this.last = null));
    this.canvas.addEventListener("keydown", (event) => this.#key(event));
    this.canvas.addEventListener("blur", () => (this.down = false));
    this.set(this.image);
  }

  set(image) {
    this.image = Float32Array.from(image);
    this.#show();
  }

  clear() {
    this.#keep();
    this.set(new Float32Array(PIXELS));
    this.changed();
  }

  undo() {
    if (!this.past.length) return;
    this.set(this.past.pop());
    this.changed();
  }

  // Another image in place of the drawn one, which undo brings back.
  replace(image) {
    this.#keep();
    this.set(image);
    this.changed();
  }

  #keep() {
    this.past = [...this.past.slice(-49), Float32Array.from(this.image)];
  }

  #place({ clientX, clientY }) {
    const box = this.canvas.getBoundingClientRect();
    return [((clientX - box.left) / box.width) * WIDTH, ((clientY - box.top) / box.height) * WIDTH];
  }

  // Ink from one place to another: full near the pen, none from 1.7 pixels on, about as wide as in MNIST.
  #line(from, to = from) {
    const steps = Math.ceil(Math.hypot(to[0] - from[0], to[1] - from[1]) / 0.4) || 1;
    for (let n = 0; n <= steps; n++) {
      const [x, y] = [0, 1].map((d) => from[d] + (n / steps) * (to[d] - from[d]));
      for (let i = Math.floor(y - 2); i <= y + 2; i++) {
        for (let j = Math.floor(x - 2); j <= x + 2; j++) {
          if (i < 0 || j < 0 || i >= WIDTH || j >= WIDTH) continue;
          const ink = Math.min(1, Math.max(0, 1.7 - Math.hypot(j + 0.5 - x, i + 0.5 - y)));
          this.image[i * WIDTH + j] = Math.max(this.image[i * WIDTH + j], ink);
        }
      }
    }
    this.#show();
    this.changed();
  }

  #key(event) {
    const move = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }[event.key];
    if (!move && ![" ", "Enter", "Delete", "Backspace"].includes(event.key)) return;
    event.preventDefault();
    if (move) {
      const from = this.at.map((n) => n + 0.5);
      this.at = this.at.map((n, d) => Math.min(WIDTH - 1, Math.max(0, n + move[d])));
      if (this.down) this.#line(from, this.at.map((n) => n + 0.5));
    } else if (event.key === " " || event.key === "Enter") {
      this.down = !this.down;
      if (this.down) this.#keep();
      if (this.down) this.#line(this.at.map((n) => n + 0.5));
    } else {
      this.clear();
    }
    this.said(`Pen ${this.down ? "down" : "up"}, row ${this.at[1] + 1}, column ${this.at[0] + 1}`);
    this.#show();
  }

  #show() {
    paintGray(this.canvas, this.image);
    this.cursor.className = `cursor${this.down ? " down" : ""}`;
    [this.cursor.style.left, this.cursor.style.top] = this.at.map((n) => `${(100 * n) / WIDTH}%`);
  }
}
