// Draw and encode: codes, reconstruction and difference follow the pen; the same drawing under each shipped model.
import { CELLS } from "./models.js";
import { CodeGrid, Pad, button, decimal, element, figure, inked, mse, paintDifference, paintGray, picture, radios } from "./ui.js";

export function mount(root, lab) {
  const { state } = lab;
  const said = element("p", { class: "said" }), loading = () => (said.textContent ||= "Loading the model …");
  const pad = new Pad(() => changed(), lab.say), undo = button("Undo", () => pad.undo());
  const grid = new CodeGrid("Codes of the drawing, 7 by 7", (place) => lab.say(grid.cells[place].ariaLabel));
  const [redrawn, difference] = [picture("The reconstruction"), picture("The difference")];
  const rows = new Map(lab.choices.map((choice) => {
    const cells = Array.from({ length: 4 }, () => element("td")), small = picture(`The reconstruction with ${lab.about(choice).K} codes`);
    return [choice, { cells, small, row: element("tr", {}, element("th", { scope: "row", text: choice }), element("td", {}, small), ...cells) }];
  }));
  const heads = ["K", "picture", "MSE", "bits, equally likely", "bits, by use", "bits, by the prior"];
  const table = element("table", { class: "models" }, element("thead", {}, element("tr", {}, ...heads.map((text) => element("th", { scope: "col", text })))),
    element("tbody", {}, ...[...rows.values()].map(({ row }) => row)));
  const number = element("input", { type: "number", min: 1, max: lab.listed.digits.labels.length, value: 1, on: { change: () => take(Number(number.value)) } });
  let later = 0;

  // First the chosen model, whose picture the eye follows; the others and the prior when the pen rests.
  const follow = lab.latest(async (image) => {
    const choice = state.chosen, { K, colors, MSE } = lab.about(choice), start = performance.now();
    const { codes, picture: pixels } = await lab.ask("encode", lab.name(choice), image);
    if (choice !== state.chosen) return;
    grid.show(codes, colors);
    paintGray(redrawn, pixels);
    paintDifference(difference, pixels, image);
    fill(choice, codes, pixels, image);
    root.dataset.milliseconds = performance.now() - start;
    const used = new Set(codes).size, error = mse(image, pixels);
    said.textContent = `${used} of ${K} codes draw this. Mean squared error ${decimal(error)}; test images have ${decimal(MSE)} on average.`;
  });

  const compare = lab.latest(async (image) => {
    for (const choice of lab.choices) {
      if (image !== state.image) return;
      const { codes, picture: pixels } = await lab.ask("encode", lab.name(choice), image);
      fill(choice, codes, pixels, image);
      if (lab.name(choice) !== lab.written) continue;
      const price = lab.prior && (await lab.price(codes, () => image === state.image));
      if (!price) continue;
      const { bits, classes } = price;
      const best = classes.indexOf(Math.max(...classes));
      rows.get(choice).cells[3].textContent = bits.toFixed(0);
      guess.textContent = !inked(image) ? "" : `To the prior for K = ${lab.about(choice).K}, this looks most like the digit ${best} (${(100 * classes[best]).toFixed(0)}%).`;
    }
    lab.say(`${said.textContent} ${guess.textContent}`);
  });
  const guess = element("p", { class: "said" });

  function fill(choice, codes, pixels, image) {
    const { K, prices } = lab.about(choice), { cells, small } = rows.get(choice);
    paintGray(small, pixels);
    const use = codes.reduce((sum, code) => sum + prices[code], 0);
    [decimal(mse(image, pixels)), (CELLS * Math.log2(K)).toFixed(0), use.toFixed(0)].forEach((text, i) => (cells[i].textContent = text));
    if (lab.name(choice) !== lab.written) cells[3].textContent = "–";
  }

  function changed() {
    state.image = Float32Array.from(pad.image);
    undo.disabled = !pad.past.length;
    loading();
    follow(state.image);
    clearTimeout(later);
    later = setTimeout(() => compare(state.image), 250);
  }

  function choose(choice) {
    state.chosen = choice;
    rows.forEach(({ row }, other) => row.classList.toggle("chosen", other === choice));
    if (state.image) follow(state.image);
  }

  async function take(n) {
    const at = Math.min(lab.listed.digits.labels.length, Math.max(1, Math.round(n) || 1));
    number.value = at;
    pad.replace(await lab.digit(at - 1));
  }

  const go = lab.open ? [button("Edit these codes", () => lab.open("edit")), button("Let the prior complete it", () => {
      state.complete = true;
      lab.open("write");
    })] : [];
  root.append(
    element("p", { text: "Draw a digit, or take a test image. The codes and the decoder's picture follow as you draw." }),
    radios("K, the number of codes", `${root.id}-K`, lab.choices, state.chosen, choose),
    element("div", { class: "squares" }, figure("draw here: mouse, finger, pen or keys", pad.canvas, "wide"), figure("its 49 codes: similar colors mean similar codes", grid.element, "codes"),
      figure("drawn from the codes alone", redrawn), figure("difference: orange too bright, blue too dark", difference)),
    element("div", { class: "controls" }, button("Clear", () => pad.clear()), undo,
      button("Next test image", () => take((Number(number.value) % lab.listed.digits.labels.length) + 1)), element("label", { text: "Test image" }, number), ...go),
    said, guess, table,
    element("p", { class: "hint", text: "MSE: mean squared error per pixel. Equally likely: 49 log₂ K bits. By use: each code costs −log₂ of its share on the test set. " +
      "By the prior: under a PixelCNN over the codes of the model with K = 32, with all ten classes equally likely." }),
  );
  pad.canvas.after(pad.cursor);
  for (const event of ["pointerenter", "focus"]) pad.canvas.addEventListener(event, () => lab.guard(() => lab.ask("load", lab.name(state.chosen))), { once: true });
  grid.show(Array(CELLS).fill(null), []);
  paintGray(redrawn, new Float32Array(784));
  paintDifference(difference, new Float32Array(784), new Float32Array(784));
  choose(state.chosen);
  undo.disabled = true;
  if (state.image) pad.replace(state.image);
  return {
    show() {},
    stop: () => clearTimeout(later),
  };
}
