// Edit: another code in a cell, another picture; two grids mixed cell by cell, or on the way from one to the other.
import { CELLS, SIDE } from "./models.js";
import { CodeGrid, button, decimal, element, figure, mse, paintGray, picture, radios, range } from "./ui.js";

export function mount(root, lab) {
  const { state } = lab, count = lab.listed.digits.labels.length;
  let chosen = state.chosen, image = null, source = null, first = null, codes = null, other = null, past = [], future = [], price = null;
  let share = 0, moving = false; // percent of the way to the other grid; whether the last change was such a move
  const edited = new Map(); // under each model
  const grid = new CodeGrid("Codes to edit, 7 by 7", (place) => lab.guard(() => open(place)));
  const second = new CodeGrid("Codes of the other image, 7 by 7: choose a cell to copy it into your grid", (place) => take(place));
  const drawn = picture("What the decoder makes of the edited codes"), original = picture("The image that was encoded"), others = picture("The other image, decoded from its codes");
  const svg = (name, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const frames = svg("svg", { class: "frames", viewBox: "0 0 28 28", "aria-hidden": "true" }), outline = svg("path", { d: "" });
  frames.append(outline);
  const atlas = element("div", { class: "atlas", role: "group", "aria-label": "All codes, the most similar to the cell's code first" }), heading = element("p");
  const said = element("p", { class: "said" }), priced = element("p", { class: "said" });
  const [undo, redo] = [button("Undo", () => turn(past, future)), button("Redo", () => turn(future, past))];
  const number = element("input", { type: "number", min: 1, max: count, value: 8, on: { change: () => lab.guard(() => choose(Number(number.value))) } });
  const way = range("Path to the other image", { min: 0, max: 100, step: 5, value: 0, show: (value) => `${value}%` }, (value) => travel(value));
  const models = radios("K", `${root.id}-K`, lab.choices, chosen, (value) => lab.guard(() => begin(value)));
  const place = (p) => `row ${Math.floor(p / SIDE) + 1}, column ${(p % SIDE) + 1}`;
  const name = () => lab.name(chosen);

  // Show codes; the price under the prior follows when nothing else is asked.
  const show = lab.latest(async () => {
    const now = codes, { colors, prices } = lab.about(chosen), changed = [...first.keys()].filter((p) => first[p] !== now[p]);
    grid.show(now, colors, new Map(changed.map((p) => [p, `was ${first[p]}`])));
    outline.setAttribute("d", changed.map((p) => `M${4 * (p % SIDE)} ${4 * Math.floor(p / SIDE)}h4v4h-4z`).join(""));
    const pixels = await lab.ask("decode", name(), now);
    paintGray(drawn, pixels);
    const use = (grid) => grid.reduce((sum, code) => sum + prices[code], 0);
    const cells = changed.length === 1 ? "1 cell has" : `${changed.length} cells have`;
    said.textContent = `${cells} changed. Mean squared error ${decimal(mse(pixels, image))} (before: ${decimal(await before())}). ` +
      `Bits by use: ${use(now).toFixed(0)} (before: ${use(first).toFixed(0)}).`;
    [undo.disabled, redo.disabled] = [!past.length, !future.length];
    lab.say(said.textContent);
    priced.textContent = name() === lab.written ? "Computing the bits under the prior …" : "";
    clearTimeout(price);
    if (name() === lab.written && lab.prior) price = setTimeout(() => lab.guard(async () => {
      const wanted = () => now === codes, after = await lab.price(now, wanted), old = await lab.price(first, wanted);
      if (after && old) priced.textContent = `Under the prior: ${after.bits.toFixed(0)} bits (before: ${old.bits.toFixed(0)}). The prior ${after.bits > old.bits + 5 ? "expects this grid less." : "is not surprised."}`;
    }), 400);
  });

  let error = null;
  async function before() {
    return (error ??= mse(await lab.ask("decode", name(), first), image));
  }

  // Another grid in place of the present one; undo brings that back.
  function change(grid, percent = share) {
    past.push([codes, share]);
    future = [];
    set(grid, percent);
  }

  function turn(from, to) {
    if (!from.length) return;
    to.push([codes, share]);
    set(...from.pop());
  }

  function set(grid, percent) {
    [codes, share, moving] = [grid, percent, false];
    way.input.value = share;
    way.update();
    show();
    mark();
  }

  // The atlas of a cell: all codes, sorted by how like they are to the cell's.
  async function open(p) {
    heading.textContent = `${place(p)} has code ${codes[p]}. Choose a different one of the ${lab.about(chosen).K} codes; the most similar come first.`.replace(/^r/, "R");
    const [order, patches] = [await lab.ask("alike", name(), codes[p]), await lab.ask("patches", name())], { colors } = lab.about(chosen);
    atlas.replaceChildren(...order.map((k) => {
      const canvas = element("canvas", { width: 8, height: 8, "aria-hidden": "true" });
      paintGray(canvas, patches[k], 8);
      const made = button("", () => change(codes.map((code, q) => (q === grid.selected ? k : code))));
      made.append(canvas, element("span", { text: k }));
      made.setAttribute("aria-label", `code ${k}`);
      made.style.borderColor = colors[k];
      return made;
    }));
    atlas.scrollTop = 0;
    mark();
  }

  function mark() {
    for (const choice of atlas.children) choice.setAttribute("aria-pressed", choice.ariaLabel === `code ${codes[grid.selected]}`);
  }

  function take(p) {
    change(codes.map((code, q) => (q === p ? other[p] : code)));
  }

  const travel = lab.latest(async (percent) => {
    const grid = await lab.ask("between", name(), first, other, percent / 100);
    if (percent !== Number(way.input.value)) return;
    if (moving) set(grid, percent); // one move for undo, however long
    else change(grid, percent);
    moving = true;
  });

  async function choose(n) {
    number.value = Math.min(count, Math.max(1, Math.round(n) || 1));
    const { codes: found, picture: pixels } = await lab.ask("encode", name(), await lab.digit(number.value - 1));
    other = found;
    second.show(other, lab.about(chosen).colors);
    paintGray(others, pixels);
    [share, moving] = [0, false];
    way.input.value = 0;
    way.update();
  }

  // Start from the drawing, or from the first test image, under the model that is chosen; or go on with what was edited.
  async function begin(choice) {
    if (codes) edited.set(chosen, { source, first, codes, past, future, error });
    chosen = state.chosen = choice;
    const earlier = edited.get(choice);
    source = state.image;
    image = source ?? (await lab.digit(0));
    if (earlier?.source === source) ({ first, codes, past, future, error } = earlier);
    else {
      first = codes = (await lab.ask("encode", name(), image)).codes;
      [past, future, error] = [[], [], null];
    }
    grid.selected = null;
    atlas.replaceChildren();
    heading.textContent = "Choose a cell to see the codes that you can put there.";
    paintGray(original, image);
    await choose(Number(number.value));
    await show();
  }

  root.append(
    element("p", { text: "Change a code, and the picture changes around its cell." }),
    models,
    element("div", { class: "squares three" }, figure("codes: choose a cell", grid.element, "codes"), figure("the picture now; changed cells are outlined", drawn),
      figure("the image that was encoded", original)),
    heading, atlas, element("div", { class: "controls" }, undo, redo, button("Restore the original codes", () => change(first, 0))), said, priced,
    element("p", { text: "Mix in another image: choose cells in its grid, or move along the path from one grid to the other." }),
    element("div", { class: "squares three" }, figure("its codes: choose a cell to copy it into yours", second.element), figure("the other image, decoded from its codes", others),
      element("div", { class: "wide" }, element("label", { text: "Other image: test image" }, number), way)),
  );
  drawn.after(frames);
  return {
    async show() {
      for (const input of models.querySelectorAll("input")) input.checked = input.value === state.chosen;
      if (!codes || source !== state.image || chosen !== state.chosen) await begin(state.chosen);
    },
    stop: () => clearTimeout(price),
  };
}
