// A training run: data, order, schedule, measures, and what to call it when it goes wrong. Runs in a page's worker and
// in Node, and gives the same numbers for the same settings.
import { VQVAE } from "./train_model.js";

export const RULES = { // what the page calls the update rule, in the library's settings
  gradient: { codebook_update: "gradient", restart_threshold: 0 },
  ema: { codebook_update: "ema", restart_threshold: 0 },
  restart: { codebook_update: "ema", restart_threshold: 0.04 },
};
export const DEFAULTS = {
  hidden_dim: 32, embedding_dim: 16, num_embeddings: 64, commitment_cost: 0.25, ...RULES.restart, decay: 0.9,
  init: "data", lr: 0.01, schedule: "one_cycle", batch_size: 32, steps: 300, seed: 0,
};

/** Numbers in [0, 1) that `seed` fixes (mulberry32). */
export function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The first K of N numbers in random order; if there are fewer than K, with repetition. */
export function draws(random, N, K) {
  if (N < K) return Array.from({ length: K }, () => Math.floor(random() * N));
  const order = Int32Array.from({ length: N }, (_, i) => i);
  for (let i = 0; i < K; i++) {
    const j = i + Math.floor(random() * (N - i));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return [...order.subarray(0, K)];
}

/** The learning rate at `progress` in [0, 1], as in vqvae_lib/config.py. */
export function learningRate(progress, peak, schedule) {
  if (schedule === "constant") return peak;
  const warm = 0.3, rising = progress < warm, low = peak / (rising ? 25 : 1000);
  const share = rising ? 1 - progress / warm : (progress - warm) / (1 - warm);
  return low + ((peak - low) * (1 + Math.cos(Math.PI * Math.min(1, share)))) / 2;
}

/** Effective number of codes: exp of the entropy of counts, (2.9). */
export function perplexity(counts) {
  const total = counts.reduce((sum, n) => sum + n, 0);
  return Math.exp(-counts.reduce((sum, n) => (n ? sum + (n / total) * Math.log(n / total) : sum), 0));
}

/** Mean over pixels of (x - y)^2, where y is the mean gray ("variance") or the mean training picture. */
function references(train, test) {
  const mean = new Float64Array(784), gray = test.reduce((sum, x) => sum + x, 0) / test.length;
  for (let i = 0; i < train.length; i++) mean[i % 784] += (train[i] * 784) / train.length;
  let variance = 0, meanPicture = 0;
  test.forEach((x, i) => {
    variance += (x - gray) ** 2 / test.length / 255 ** 2;
    meanPicture += (x - mean[i % 784]) ** 2 / test.length / 255 ** 2;
  });
  return { variance, meanPicture: meanPicture / variance };
}

/** A run on pictures of 28 x 28 bytes, one after another: `train` to learn from, `test` to measure on. */
export class Run {
  constructor(settings, { train, test }, memory) {
    this.config = { ...DEFAULTS, ...settings };
    this.train = train;
    this.test = test;
    this.random = generator(this.config.seed);
    this.model = new VQVAE(this.config, memory, this.random, (N, K) => draws(this.random, N, K));
    this.step = 0;
    this.order = [];
    Object.assign(this, references(train, test));
    const pictures = train.length / 784;
    if (pictures < this.config.batch_size)
      throw new RangeError(`${pictures} pictures to train on: add some, or lower batch_size = ${this.config.batch_size}`);
  }

  get done() {
    return this.step >= this.config.steps;
  }

  fill(bytes, numbers) {
    numbers.forEach((n, row) => {
      for (let i = 0; i < 784; i++) this.model.x[row * 784 + i] = bytes[n * 784 + i] / 255;
    });
  }

  /** One training step on the next batch; passes over the data are shuffled, and what a batch can't fill is left out. */
  advance() {
    const { config, model, train } = this, { batch_size, steps, lr, schedule } = config, n = train.length / 784;
    if (this.order.length < batch_size) this.order = draws(this.random, n, n);
    this.fill(train, this.order.splice(0, batch_size));
    if (this.step === 0) model.initialize();
    const losses = model.gradients();
    model.adam(learningRate(this.step / steps, lr, schedule));
    this.step++;
    return losses;
  }

  /** Measures on the test pictures: error (1 for the mean gray), codes in use, mean length of z_e. */
  measure() {
    const { model, test, config } = this, { batch_size: batch, num_embeddings: K, embedding_dim: D } = config;
    const counts = new Array(K).fill(0), n = test.length / 784;
    let squares = 0, length = 0;
    for (let start = 0; start < n; start += batch) {
      const rows = Math.min(batch, n - start);
      this.fill(test, Array.from({ length: batch }, (_, i) => start + (i % rows)));
      const y = model.reconstruct();
      for (let i = 0; i < rows * 784; i++) squares += (y[i] - model.x[i]) ** 2;
      for (let i = 0; i < rows * 49; i++) {
        counts[model.indices[i]]++;
        let square = 0;
        for (let d = i * D; d < (i + 1) * D; d++) square += model.z_e[d] ** 2;
        length += Math.sqrt(square);
      }
    }
    this.counts = counts;
    return {
      step: this.step, normalized_mse: squares / (n * 784) / this.variance, perplexity: perplexity(counts),
      codes: counts.filter((count) => count > 0).length, z_length: length / (n * 49),
    };
  }

  /** The model as it is now, for the other stations: its tensors, and what they show of it, as files.py writes it. */
  kept() {
    const { normalized_mse } = this.measure(), { model, counts } = this, K = counts.length;
    const all = counts.reduce((sum, n) => sum + n + 0.5, 0), prices = counts.map((n) => -Math.log2((n + 0.5) / all));
    const about = { class: "VQVAE", K, MSE: normalized_mse * this.variance, prices, colors: colors(model.codebook.value, K, model.D) };
    return { about, tensors: model.tensors() };
  }

  /** What to look at: the first `n` test pictures with reconstructions and codes, and a picture of each code alone. */
  show(n = 8) {
    const { model, config } = this, batch = config.batch_size, K = config.num_embeddings, D = config.embedding_dim;
    n = Math.min(n, batch, this.test.length / 784);
    this.fill(this.test, Array.from({ length: batch }, (_, i) => i % n));
    const bytes = (y) => Uint8Array.from(y, (value) => Math.round(255 * value));
    const pictures = bytes(model.reconstruct().subarray(0, n * 784)), indices = model.indices.slice(0, n * 49);
    const sheet = new Uint8Array(K * 16); // a code's 4 x 4 pixels, from the middle of a grid of that code alone
    for (let start = 0; start < K; start += batch) {
      for (let i = 0; i < model.z_q.length; i++) {
        const k = Math.min(K - 1, start + Math.floor(i / (49 * D)));
        model.z_q[i] = model.codebook.value[k * D + (i % D)];
      }
      const y = bytes(model.decode());
      for (let k = start; k < Math.min(K, start + batch); k++) for (let i = 0; i < 16; i++)
        sheet[k * 16 + i] = y[(k - start) * 784 + (12 + (i >> 2)) * 28 + 12 + (i & 3)];
    }
    return { originals: this.test.slice(0, n * 784), pictures, indices, sheet };
  }
}

/** Colors "#rrggbb" of codes (K, D), the more alike the nearer the codes: `colors` of files.py, with its axes by powers. */
export function colors(codebook, K, D) {
  const rows = Array.from({ length: K }, (_, k) => Float64Array.from(codebook.subarray(k * D, (k + 1) * D)));
  const dot = (a, b) => a.reduce((sum, value, d) => sum + value * b[d], 0);
  const less = (row, axis, by) => row.forEach((_, d) => (row[d] -= by * axis[d]));
  const mean = Float64Array.from({ length: D }, (_, d) => rows.reduce((sum, row) => sum + row[d], 0) / K);
  rows.forEach((row) => less(row, mean, 1));
  const places = [0, 1, 2].map((n) => {
    let axis = Float64Array.from({ length: D }, (_, d) => (d === n % D ? 1 : 0.1));
    for (let round = 0; round < 50; round++) {
      const next = new Float64Array(D);
      for (const row of rows) less(next, row, -dot(row, axis));
      const length = Math.sqrt(dot(next, next)) || 1;
      axis = next.map((value) => value / length);
    }
    const along = rows.map((row) => dot(row, axis)), spread = Math.sqrt(dot(along, along) / K) || 1;
    rows.forEach((row, k) => less(row, axis, along[k]));
    return along.map((value) => Math.max(-2, Math.min(2, value / spread)));
  });
  return rows.map((_, k) => {
    const [x, y, z] = places.map((place) => place[k]), strength = Math.min(0.85, 0.25 + 0.3 * Math.hypot(x, y)), light = 0.55 + 0.12 * z;
    const part = (n) => { // hue, strength and lightness as red, green and blue
      const at = (n + (6 * Math.atan2(y, x)) / Math.PI + 12) % 12;
      return light - strength * Math.min(light, 1 - light) * Math.max(-1, Math.min(at - 3, 9 - at, 1));
    };
    return `#${[0, 8, 4].map((n) => Math.round(255 * part(n)).toString(16).padStart(2, "0")).join("")}`;
  });
}

export const TROUBLE = { // what is wrong, in a sentence, and the section that explains it
  finite: ["The loss is no longer a finite number.", "05_training", "what-goes-wrong-and-what-it-looks-like"],
  mean: ["The error is above that of the mean image, {}.", "04_encoder_decoder", "what-a-collapsed-model-looks-like"],
  codes: ["Fewer than a quarter of the codes are used.", "02_quantizer", "dead-codes-and-codebook-collapse"],
  worse: ["The error is more than 1.5 times its lowest value so far.", "05_training", "what-goes-wrong-and-what-it-looks-like"],
  growing: ["The vectors of the encoder keep growing.", "01_maths", "sums-means-and-beta"],
};

/**
 * Name what is wrong with a run, worst first, from its history of measures: [{step, normalized_mse, codes, z_length}].
 * Until the schedule's warm-up is over, at three tenths of the steps, only a value that is not finite counts as trouble.
 */
export function troubles(history, { num_embeddings, steps, meanPicture }) {
  const last = history.at(-1);
  if (!last) return [];
  if (![last.normalized_mse, last.z_length, last.total_loss ?? 0].every(Number.isFinite)) return ["finite"];
  const settled = history.filter(({ step }) => step >= 0.3 * steps);
  if (!settled.length) return [];
  const lengths = settled.map((entry) => entry.z_length);
  return Object.entries({
    mean: last.normalized_mse > meanPicture,
    codes: last.codes < num_embeddings / 4,
    worse: last.normalized_mse > 1.5 * Math.min(...history.map((entry) => entry.normalized_mse)),
    growing: last.z_length > 2 * lengths[0] && last.z_length === Math.max(...lengths),
  }).filter(([, is]) => is).map(([name]) => name);
}
