// What test_lab_train.py asks of the page's training engine: a JSON task from the standard input, its answer to the output.
import { readFileSync } from "node:fs";
import { VQVAE as Shown } from "../vqvae_book/lab/models.js";
import { DEFAULTS, RULES, Run, learningRate, troubles } from "../vqvae_book/lab/train.js";
import { Memory, VQVAE } from "../vqvae_book/lab/train_model.js";

const bytes = (path) => new Uint8Array(readFileSync(path));
const plain = (state) => Object.fromEntries(Object.entries(state).map(([name, values]) => [name, [...values]]));

const TASKS = {
  /** Steps on given weights, batches and draws: the first step's gradients, each step's losses, the weights at the end. */
  parity({ settings, weights, images, draws }) {
    const config = { ...DEFAULTS, ...settings }, pictures = bytes(images), batch = config.batch_size * 784;
    const model = new VQVAE(config, new Memory(), Math.random, () => draws.shift());
    model.load(weights);
    const losses = [], gradients = [];
    for (let step = 0; step < config.steps; step++) {
      model.x.forEach((_, i) => (model.x[i] = pictures[step * batch + i] / 255));
      if (step === 0) model.initialize();
      losses.push(model.gradients());
      if (step === 0) gradients.push(plain(model.state("grad")));
      model.adam(learningRate(step / config.steps, config.lr, config.schedule));
    }
    return { losses, gradients: gradients[0], weights: plain(model.state()), usage: [...model.usage], left: draws.length };
  },

  /** Whole runs, one after another in one memory: their histories, and the memory's size after each. */
  runs({ settings, train, test, every }) {
    const memory = new Memory(), data = { train: bytes(train), test: bytes(test) };
    return settings.map(({ rule, ...others }) => {
      const run = new Run({ ...RULES[rule], ...others }, data, memory), history = [], times = [];
      while (!run.done) {
        const start = performance.now(), { total_loss } = run.advance();
        times.push(performance.now() - start);
        if (run.step % every === 0 || run.done) history.push({ ...run.measure(), total_loss });
      }
      const shown = Object.fromEntries(Object.entries(run.show()).map(([name, values]) => [name, [...values]]));
      const { variance, meanPicture } = run, size = memory.memory.buffer.byteLength;
      return { history, variance, meanPicture, troubles: troubles(history, { ...run.config, meanPicture }), size, shown, times };
    });
  },

  /** A run's model as other stations take it: what they show of it, its codes and picture of a test image, and its own. */
  kept({ settings, train, test }) {
    const run = new Run(settings, { train: bytes(train), test: bytes(test) }, new Memory());
    while (!run.done) run.advance();
    const { about, tensors } = run.kept(), model = new Shown(tensors), image = Float32Array.from(run.test.subarray(0, 784), (x) => x / 255);
    const { pictures, indices } = run.show(), codes = model.encode(image), drawn = model.decode(codes);
    const own = { codes: [...indices.subarray(0, 49)], drawn: [...pictures.subarray(0, 784)] };
    return { about, codebook: [...run.model.codebook.value], shown: { codes, drawn: [...drawn].map((x) => Math.round(255 * x)) }, own, ...run.measure() };
  },

  troubles: ({ cases }) => cases.map(({ history, about }) => troubles(history, about)),
};

const { task, ...question } = JSON.parse(readFileSync(0, "utf8"));
const value = (_, v) => (typeof v === "number" && !Number.isFinite(v) ? String(v) : v); // JSON has no NaN
process.stdout.write(JSON.stringify(TASKS[task](question), value));
