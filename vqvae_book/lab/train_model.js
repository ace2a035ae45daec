// The VQ-VAE of vqvae_lib (model.py, quantizer.py), forward and backward, on float arrays. Pictures are (batch, y, x,
// channel); each convolution is one product of matrices, of patches with weights. Names are the library's.
import { matmulModule } from "./train_matmul.js";

/** The memory in which all arrays of a run lie, and the product that reads and writes them there. Kept from run to run. */
export class Memory {
  constructor() {
    this.memory = new WebAssembly.Memory({ initial: 1 });
    const module = new WebAssembly.Module(matmulModule());
    this.matmul = new WebAssembly.Instance(module, { page: { memory: this.memory } }).exports.matmul;
  }

  /** What `build(take)` returns, where `take(n)` gives n zeros. It's called twice; the first call only counts. */
  lay(build) {
    let floats = 0;
    build((n) => ((floats += n + (-n & 3)), new Float32Array(0)));
    const missing = Math.ceil((4 * floats - this.memory.buffer.byteLength) / 65536);
    if (missing > 0) this.memory.grow(missing);
    let place = 0;
    return build((n) => {
      const array = new Float32Array(this.memory.buffer, 4 * place, n).fill(0);
      place += n + (-n & 3);
      return array;
    });
  }

  /** c (M, N) = a (M, K) b (K, N), M and N multiples of 4; with `turned`, a is stored as (K, M). */
  product(a, b, c, M, N, K, turned = false) {
    const [row, column] = turned ? [4, 4 * M] : [4 * K, 4];
    this.matmul(a.byteOffset, row, column, b.byteOffset, c.byteOffset, M, N, K);
  }
}

function transpose(a, rows, columns, out) {
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) out[j * rows + i] = a[i * columns + j];
}

/** In place, of pixels with as many channels as biases: y <- f(y + bias). */
const along = (f) => (y, bias) => {
  const n = y.length, channels = bias.length;
  for (let i = 0; i < n; i += channels) for (let c = 0; c < channels; c++) y[i + c] = f(y[i + c] + bias[c]);
};
const back = (f) => (dy, y) => {
  const n = y.length;
  for (let i = 0; i < n; i++) dy[i] = f(dy[i], y[i]);
};
const ACTIVATIONS = { // of the sum, and of the gradient, given the output
  none: [along((x) => x), () => {}],
  relu: [along((x) => (x < 0 ? 0 : x)), back((d, y) => (y <= 0 ? 0 : d))],
  sigmoid: [along((x) => 1 / (1 + Math.exp(-x))), back((d, y) => d * y * (1 - y))],
};

/** A convolution (big picture -> small) or, with `up`, a transposed one (small -> big), with bias and activation. */
class Layer {
  constructor(memory, take, scratch, batch, { name, up = false, big, small, kernel, of, to, activation }) {
    Object.assign(this, { memory, scratch, batch, name, up, big, small, kernel, activation });
    [this.bigC, this.smallC] = up ? [to, of] : [of, to]; // channels
    this.stride = big / small;
    this.rows = batch * small * small;
    this.patch = kernel * kernel * this.bigC;
    this.patches = take(up ? 0 : this.rows * this.patch);
    this.x = null;
    this.y = take(batch * to * (up ? big : small) ** 2);
    this.dx = take(batch * of * (up ? small : big) ** 2);
    this.turned = take(this.patch * this.smallC);
    this.weight = { value: take(this.patch * this.smallC), grad: take(this.patch * this.smallC) };
    this.bias = { value: take(to), grad: take(to) };
  }

  static scratch({ small, kernel, of, to, up = false }, batch) {
    return batch * small * small * kernel * kernel * (up ? to : of);
  }

  forward(x) {
    const { memory, scratch, weight, bias, y, rows, patch, smallC } = this;
    this.x = x;
    if (this.up) {
      memory.product(x, weight.value, scratch, rows, patch, smallC);
      y.fill(0);
      this.move(scratch, y, true);
    } else {
      this.move(this.patches.fill(0), x, false);
      memory.product(this.patches, weight.value, y, rows, smallC, patch);
    }
    ACTIVATIONS[this.activation][0](y, bias.value);
    return y;
  }

  /** From the gradient of the output (overwritten) those of weights and bias, and, unless it's the first layer, of x. */
  backward(dy, first = false) {
    const { memory, scratch, weight, bias, turned, dx, rows, patch, smallC } = this;
    ACTIVATIONS[this.activation][1](dy, this.y);
    const channels = bias.value.length;
    const sums = new Float64Array(channels);
    for (let i = 0; i < dy.length; i += channels) for (let c = 0; c < channels; c++) sums[c] += dy[i + c];
    bias.grad.set(sums);
    if (this.up) {
      this.move(scratch.fill(0, 0, rows * patch), dy, false);
      memory.product(this.x, scratch, weight.grad, smallC, patch, rows, true);
      transpose(weight.value, smallC, patch, turned);
      memory.product(scratch, turned, dx, rows, smallC, patch);
    } else {
      memory.product(this.patches, dy, weight.grad, patch, smallC, rows, true);
      if (first) return null;
      transpose(weight.value, patch, smallC, turned);
      memory.product(dy, turned, scratch, rows, patch, smallC);
      dx.fill(0);
      this.move(scratch, dx, true);
    }
    return dx;
  }

  /** Copy the picture's patches (padding: 1 pixel, left as it is) or, with `back`, add them up in the picture. */
  move(patches, picture, back) {
    const { batch, big, small, kernel, stride, bigC } = this;
    let row = 0;
    for (let b = 0; b < batch; b++) for (let y = 0; y < small; y++) for (let x = 0; x < small; x++) {
      const left = x * stride - 1, first = Math.max(0, -left), last = Math.min(kernel, big - left);
      const run = (last - first) * bigC; // pixels side by side are side by side in both
      for (let k = 0; k < kernel; k++) {
        const line = y * stride - 1 + k;
        if (line < 0 || line >= big) continue;
        const from = ((b * big + line) * big + left + first) * bigC;
        const to = row + (k * kernel + first) * bigC;
        if (back) for (let i = 0; i < run; i++) picture[from + i] += patches[to + i];
        else for (let i = 0; i < run; i++) patches[to + i] = picture[from + i];
      }
      row += this.patch;
    }
  }

  /** The weight in the library's order (small channel, big channel, y, x), or ours from it. */
  reorder(values, ours) {
    const { bigC, smallC, kernel, patch, up } = this, out = new Float32Array(values.length), area = kernel * kernel;
    for (let s = 0; s < smallC; s++) for (let c = 0; c < bigC; c++) for (let k = 0; k < area; k++) {
      const here = up ? s * patch + k * bigC + c : (k * bigC + c) * smallC + s, there = (s * bigC + c) * area + k;
      if (ours) out[here] = values[there];
      else out[there] = values[here];
    }
    return out;
  }
}

/** Encoder, codebook and decoder for `batch` pictures of side 28, with `draw(N, K)`: K of the numbers below N. */
export class VQVAE {
  constructor(config, memory, random, draw) {
    const { hidden_dim: H, embedding_dim: D, num_embeddings: K, batch_size: batch } = config;
    for (const [name, value] of Object.entries({ "hidden_dim / 2": H / 2, D, K, batch_size: batch }))
      if (!(value > 0) || value % 4) throw new RangeError(`${name} = ${value}: use a multiple of 4`);
    Object.assign(this, { config, memory, draw, side: 28, grid: 7, K, D, N: batch * 49, updates: 0 });
    const layers = [
      { name: "encoder.net.0", big: 28, small: 14, kernel: 4, of: 1, to: H / 2, activation: "relu" },
      { name: "encoder.net.2", big: 14, small: 7, kernel: 4, of: H / 2, to: H, activation: "relu" },
      { name: "encoder.net.4", big: 7, small: 7, kernel: 3, of: H, to: D, activation: "none" },
      { name: "decoder.net.0", big: 7, small: 7, kernel: 3, of: D, to: H, activation: "relu" },
      { name: "decoder.net.2", up: true, big: 14, small: 7, kernel: 4, of: H, to: H / 2, activation: "relu" },
      { name: "decoder.net.4", up: true, big: 28, small: 14, kernel: 4, of: H / 2, to: 1, activation: "sigmoid" },
    ];
    memory.lay((take) => {
      const scratch = take(Math.max(...layers.map((layer) => Layer.scratch(layer, batch))));
      this.layers = layers.map((layer) => new Layer(memory, take, scratch, batch, layer));
      this.x = take(batch * 784);
      this.dy = take(batch * 784);
      this.codebook = { value: take(K * D), grad: take(K * D) };
      this.codes = take(D * K); // the codebook, turned
      this.scores = take(this.N * K);
      this.z_q = take(this.N * D);
    });
    this.usage = new Float32Array(K).fill(1);
    this.indices = new Int32Array(this.N);
    for (const { weight, bias, patch, name } of this.layers) {
      const bound = 1 / Math.sqrt(patch); // PyTorch's own
      for (const { value } of [weight, bias]) value.forEach((_, i) => (value[i] = (2 * random() - 1) * bound));
      if (name === "decoder.net.4") bias.value.fill(0);
    }
    this.codebook.value.forEach((_, i) => (this.codebook.value[i] = (2 * random() - 1) / K));
    const moved = this.layers.flatMap(({ weight, bias }) => [weight, bias]);
    this.parameters = config.codebook_update === "gradient" ? [...moved, this.codebook] : moved;
    for (const parameter of this.parameters) {
      parameter.m = new Float32Array(parameter.value.length);
      parameter.v = new Float32Array(parameter.value.length);
    }
    this.steps = 0; // of Adam
  }

  encode() {
    return this.layers.slice(0, 3).reduce((x, layer) => layer.forward(x), this.x);
  }

  decode() {
    return this.layers.slice(3).reduce((x, layer) => layer.forward(x), this.z_q);
  }

  /** Nearest codes of vectors (N, D), (2.2): the largest z.e - ||e||^2 / 2; ties go to the lowest. Sets indices. */
  assign(z) {
    const { K, D, N, scores, indices } = this, codebook = this.codebook.value;
    transpose(codebook, K, D, this.codes);
    this.memory.product(z, this.codes, scores, N, K, D);
    const half = new Float32Array(K);
    for (let i = 0; i < K * D; i++) half[(i / D) | 0] += codebook[i] ** 2 / 2;
    for (let n = 0; n < N; n++) {
      let best = -Infinity, index = 0;
      for (let k = 0; k < K; k++) {
        const score = scores[n * K + k] - half[k];
        if (score > best) (best = score), (index = k);
      }
      indices[n] = index;
    }
  }

  /** Replace z by its codes; return the mean squared distance. */
  quantize(z) {
    const { D, z_q, indices } = this, codebook = this.codebook.value;
    this.assign(z);
    let sum = 0;
    for (let i = 0; i < z_q.length; i++) {
      z_q[i] = codebook[indices[(i / D) | 0] * D + (i % D)];
      sum += (z[i] - z_q[i]) ** 2;
    }
    return sum / z_q.length;
  }

  /** Forward alone, of the pictures in x: reconstructions in `output`, codes in `indices`. */
  reconstruct() {
    this.quantize((this.z_e = this.encode()));
    return (this.output = this.decode());
  }

  /** Start codebook (k-means, if init is "data") and decoder's last bias from the pictures in x. */
  initialize() {
    if (this.config.init === "data") {
      const z = this.encode(), { K, D, N } = this, codebook = this.codebook.value;
      this.place(z, Array(K).fill(true));
      for (let round = 0; round < 10; round++) {
        this.assign(z);
        const [counts, sums] = this.sums(z);
        for (let i = 0; i < K * D; i++) if (counts[(i / D) | 0]) codebook[i] = sums[i] / counts[(i / D) | 0];
        this.usage.set(counts);
      }
    }
    const mean = Math.min(0.99, Math.max(0.01, this.x.reduce((sum, x) => sum + x, 0) / this.x.length));
    this.layers[5].bias.value.fill(Math.log(mean / (1 - mean)));
  }

  /** Counts (K,) and sums (K, D) of the vectors of each code. */
  sums(z) {
    const counts = new Float32Array(this.K), sums = new Float32Array(this.K * this.D);
    for (let n = 0; n < this.N; n++) {
      const k = this.indices[n];
      counts[k]++;
      for (let d = 0; d < this.D; d++) sums[k * this.D + d] += z[n * this.D + d];
    }
    return [counts, sums];
  }

  /** Move the chosen codes onto vectors drawn from z. */
  place(z, chosen) {
    const { D, N, K } = this;
    this.draw(N, K).forEach((n, k) => {
      if (chosen[k]) this.codebook.value.set(z.subarray(n * D, (n + 1) * D), k * D);
    });
  }

  /** Count use, move codes by averages (2.7), restart dead ones: what the library's quantizer does in a forward pass. */
  update(z) {
    const { K, D, usage } = this, { codebook_update, decay, restart_threshold } = this.config;
    const [counts, sums] = this.sums(z), codebook = this.codebook.value;
    const weight = Math.max(9 / (10 + this.updates++), 1 - decay);
    for (let k = 0; k < K; k++) {
      usage[k] += weight * (counts[k] - usage[k]);
      const step = weight / Math.max(usage[k], 1.2e-38);
      if (codebook_update === "ema" && counts[k])
        for (let i = k * D; i < (k + 1) * D; i++) codebook[i] += step * (sums[i] - counts[k] * codebook[i]);
    }
    if (!restart_threshold) return;
    const mean = usage.reduce((sum, n) => sum + n, 0) / K;
    const dead = [...usage].map((n) => n < restart_threshold * mean);
    if (!dead.includes(true)) return;
    this.place(z, dead);
    dead.forEach((is, k) => is && (usage[k] = mean));
  }

  /** Losses and gradients for the pictures in x, and the codebook's own update. */
  gradients() {
    const { x, dy, z_q, indices, D } = this, { commitment_cost: beta, codebook_update } = this.config;
    const z = this.encode(), distance = this.quantize(z), y = this.decode();
    let recon_loss = 0;
    for (let i = 0; i < x.length; i++) {
      recon_loss += (y[i] - x[i]) ** 2 / x.length;
      dy[i] = (2 * (y[i] - x[i])) / x.length;
    }
    const dz = this.layers.slice(3).reduceRight((gradient, layer) => layer.backward(gradient), dy);
    const gradient = this.codebook.grad.fill(0), n = z.length;
    for (let i = 0; i < n; i++) {
      const difference = (2 * (z[i] - z_q[i])) / n;
      gradient[indices[(i / D) | 0] * D + (i % D)] -= difference;
      dz[i] += beta * difference; // the decoder's gradient came straight through, (1.9)
    }
    this.layers.slice(0, 3).reduceRight((down, layer, i) => layer.backward(down, i === 0), dz);
    this.update(z);
    const vq_loss = (codebook_update === "gradient" ? 1 + beta : beta) * distance;
    return { recon_loss, vq_loss, total_loss: recon_loss + vq_loss };
  }

  /** Adam (Kingma and Ba 2015) with PyTorch's constants. */
  adam(lr) {
    const t = ++this.steps, c1 = 1 - 0.9 ** t, c2 = Math.sqrt(1 - 0.999 ** t);
    for (const { value, grad, m, v } of this.parameters) for (let i = 0; i < value.length; i++) {
      m[i] += 0.1 * (grad[i] - m[i]);
      v[i] = 0.999 * v[i] + 0.001 * grad[i] * grad[i];
      value[i] -= (lr / c1) * m[i] / (Math.sqrt(v[i]) / c2 + 1e-8);
    }
  }

  /** Weights (or with "grad" their gradients) under the library's names, in its order of numbers: copies. */
  state(kind = "value") {
    const parts = this.layers.flatMap((layer) => [
      [`${layer.name}.weight`, layer.reorder(layer.weight[kind], false)],
      [`${layer.name}.bias`, layer.bias[kind].slice()],
    ]);
    return Object.fromEntries([...parts, ["vq.codebook", this.codebook[kind].slice()]]);
  }

  /** The weights with their shapes, as models.js reads them. */
  tensors() {
    const data = this.state(), shapes = { "vq.codebook": [this.K, this.D] };
    for (const { name, smallC, bigC, kernel, bias } of this.layers)
      Object.assign(shapes, { [`${name}.weight`]: [smallC, bigC, kernel, kernel], [`${name}.bias`]: [bias.value.length] });
    return Object.fromEntries(Object.entries(data).map(([name, values]) => [name, { data: values, shape: shapes[name] }]));
  }

  load(state) {
    for (const layer of this.layers) {
      layer.weight.value.set(layer.reorder(state[`${layer.name}.weight`], true));
      layer.bias.value.set(state[`${layer.name}.bias`]);
    }
    this.codebook.value.set(state["vq.codebook"]);
  }
}
