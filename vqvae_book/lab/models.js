// The library's two models, VQVAE and PixelCNN, for one image at a time, from the weights that the library ships.
import { convolve, gate, kernel, linear, logSoftmax, relu, sigmoid, spread, transposedKernel } from "./tensor.js";

export const SIDE = 7, CELLS = SIDE * SIDE, PIXELS = 28 * 28;

const HALF = new Float32Array(65536); // every number of half precision, by its bits
for (let bits = 0; bits < 65536; bits++) {
  const exponent = (bits >> 10) & 31, fraction = bits & 1023;
  const size = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24;
  HALF[bits] = bits >> 15 ? -size : size;
}

// The tensors in a file, name -> { data, shape }; `layout` says of each its name, shape, kind and place in the file.
export function readWeights(buffer, layout) {
  const tensors = {};
  for (const { name, shape, kind, at } of layout) {
    const count = shape.reduce((a, b) => a * b, 1), rows = shape[0];
    if (kind === "half") {
      tensors[name] = { shape, data: Float32Array.from(new Uint16Array(buffer, at, count), (bits) => HALF[bits]) };
    } else { // 8 bits, and before them one scale per row
      const scales = new Float32Array(buffer, at, rows), values = new Int8Array(buffer, at + 4 * rows, count);
      tensors[name] = { shape, data: Float32Array.from(values, (value, i) => value * scales[Math.floor((i * rows) / count)]) };
    }
  }
  return tensors;
}

export class VQVAE {
  constructor(tensors) {
    const layer = (make, name) => make(tensors[`${name}.weight`], tensors[`${name}.bias`]);
    this.encoder = [0, 2, 4].map((i) => layer(kernel, `encoder.net.${i}`));
    this.first = layer(kernel, "decoder.net.0");
    this.decoder = [2, 4].map((i) => layer(transposedKernel, `decoder.net.${i}`));
    const { data, shape: [K, D] } = tensors["vq.codebook"];
    Object.assign(this, { codebook: data, K, D });
    // |e|^2 / 2, so that the nearest code is the one with the largest z.e - |e|^2 / 2.
    this.halves = Float64Array.from({ length: K }, (_, k) => {
      let sum = 0;
      for (let d = k * D; d < (k + 1) * D; d++) sum += data[d] ** 2;
      return sum / 2;
    });
  }

  // An image, (28 * 28) in [0, 1], as z_e: (49, D).
  features(image) {
    const h = relu(convolve(image, [28, 28], this.encoder[0], 2, 1));
    return convolve(relu(convolve(h, [14, 14], this.encoder[1], 2, 1)), [7, 7], this.encoder[2], 1, 1);
  }

  // The nearest code of each vector of D numbers.
  nearest(z) {
    const { codebook, halves, K, D } = this;
    return Array.from({ length: z.length / D }, (_, p) => {
      let best = -Infinity, code = 0;
      for (let k = 0; k < K; k++) {
        let score = -halves[k];
        for (let d = 0; d < D; d++) score += z[p * D + d] * codebook[k * D + d];
        if (score > best) [best, code] = [score, k];
      }
      return code;
    });
  }

  encode(image) {
    return this.nearest(this.features(image));
  }

  lookup(codes) {
    const z = new Float32Array(codes.length * this.D);
    codes.forEach((k, p) => z.set(this.codebook.subarray(k * this.D, (k + 1) * this.D), p * this.D));
    return z;
  }

  // A square grid of codes, 7 x 7 for example, as an image with four times its sides, in [0, 1].
  decode(codes) {
    const side = Math.sqrt(codes.length), h = relu(convolve(this.lookup(codes), [side, side], this.first, 1, 1));
    return sigmoid(spread(relu(spread(h, [side, side], this.decoder[0])), [2 * side, 2 * side], this.decoder[1]));
  }

  // What each code draws among copies of itself: the middle 8 x 8 pixels of a grid of 3 x 3.
  patches() {
    this.drawn ??= Array.from({ length: this.K }, (_, k) => {
      const image = this.decode(Array(9).fill(k));
      return Array.from({ length: 8 }, (_, i) => [...image.subarray((i + 2) * 12 + 2, (i + 2) * 12 + 10)]).flat();
    });
    return this.drawn;
  }

  // Codes on the way from one grid to another, a share of the way: vectors between them, each moved to its nearest code.
  between(from, to, share) {
    const [a, b] = [this.lookup(from), this.lookup(to)];
    return this.nearest(a.map((value, i) => value + share * (b[i] - value)));
  }

  // All codes, those most similar to a given one first.
  alike(code) {
    const distance = Array.from({ length: this.K }, (_, k) => {
      let sum = 0;
      for (let d = 0; d < this.D; d++) sum += (this.codebook[k * this.D + d] - this.codebook[code * this.D + d]) ** 2;
      return sum;
    });
    return [...distance.keys()].sort((a, b) => distance[a] - distance[b]);
  }
}

// The gated PixelCNN of vqvae_lib.prior. It keeps what it has computed for a grid: a new code costs its own position, and a
// new row one pass of the vertical stack.
export class PixelCNN {
  constructor(tensors) {
    const layer = (name) => kernel(tensors[`${name}.weight`], tensors[`${name}.bias`]);
    const parts = ["vertical", "link", "horizontal", "out", "condition"];
    const count = Object.keys(tensors).filter((name) => name.endsWith("vertical.weight")).length;
    this.layers = Array.from({ length: count }, (_, l) => Object.fromEntries(parts.map((part) => [part, layer(`stack.layers.${l}.${part}`)])));
    this.head = [1, 3].map((i) => layer(`head.${i}`));
    ({ data: this.embedding, shape: [this.K, this.C] } = tensors["embed.weight"]);
    this.label = null;
  }

  // Logits (K) of the code at a place, 0 to 48, given the class and the codes before it.
  logits(codes, label, place) {
    let known = 0; // codes of which something is kept
    while (label === this.label && known < this.codes.length && this.codes[known] === codes[known]) known++;
    if (label !== this.label) Object.assign(this, { label, rows: [], horizontals: [], outputs: [], classes: this.#classes(label) });
    // The vertical stack has read the rows above its own; the horizontal one the codes before its place.
    this.rows.length = Math.min(this.rows.length, Math.floor(known / SIDE) + 1);
    this.horizontals.length = this.outputs.length = Math.min(this.outputs.length, known + 1);
    this.codes = codes.slice(0, Math.max(known, place));
    while (this.outputs.length <= place) this.#position(codes, this.outputs.length);
    return this.outputs[place];
  }

  // -log2 p(code) of each code, given the class.
  bits(codes, label) {
    return codes.map((code, place) => -logSoftmax(this.logits(codes, label, place))[code] / Math.LN2);
  }

  #embed(code) {
    return this.embedding.subarray(code * this.C, (code + 1) * this.C);
  }

  // What a class adds in each layer, to the vertical stack and to its links.
  #classes(label) {
    return this.layers.map(({ condition: { weight, O, I } }) => {
      const all = Float32Array.from({ length: O }, (_, o) => weight[o * I + label]);
      return { v: all.subarray(0, O / 2), h: all.subarray(O / 2) };
    });
  }

  // One row of the vertical stack: each layer reads its input's row above and its own, one position to both sides.
  #row(codes, i) {
    const C = this.C, above = this.rows[i - 1];
    let v = new Float32Array(SIDE * C);
    if (i > 0) for (let j = 0; j < SIDE; j++) v.set(this.#embed(codes[(i - 1) * SIDE + j]), j * C);
    const inputs = [], links = [];
    this.layers.forEach((layer, l) => {
      inputs.push(v);
      const patches = new Float32Array(SIDE * 6 * C);
      [above?.inputs[l], v].forEach((row, a) => {
        if (!row) return;
        for (let j = 0; j < SIDE; j++) {
          const from = Math.max(0, j - 1), to = Math.min(SIDE, j + 2);
          patches.set(row.subarray(from * C, to * C), (6 * j + 3 * a + from - j + 1) * C);
        }
      });
      const a = linear(patches, layer.vertical), link = linear(a, layer.link), { v: forV, h: forH } = this.classes[l];
      for (let p = 0; p < a.length; p++) {
        a[p] += forV[p % (2 * C)];
        link[p] += forH[p % (2 * C)];
      }
      links.push(link);
      v = gate(a, SIDE, C);
    });
    this.rows[i] = { inputs, links };
  }

  // One position of the horizontal stack: each layer reads its input at the position to the left and at its own.
  #position(codes, place) {
    const C = this.C, i = Math.floor(place / SIDE), j = place % SIDE;
    if (!this.rows[i]) this.#row(codes, i);
    const left = j ? this.horizontals[place - 1] : null, inputs = [];
    let h = j ? Float32Array.from(this.#embed(codes[place - 1])) : new Float32Array(C);
    this.layers.forEach((layer, l) => {
      inputs.push(h);
      const pair = new Float32Array(2 * C);
      if (left) pair.set(left[l]);
      pair.set(h, C);
      const a = linear(pair, layer.horizontal), link = this.rows[i].links[l];
      for (let c = 0; c < 2 * C; c++) a[c] += link[2 * j * C + c];
      const out = linear(gate(a, 1, C), layer.out);
      h = h.map((value, c) => value + out[c]);
    });
    this.horizontals[place] = inputs;
    this.outputs[place] = linear(relu(linear(relu(h), this.head[0])), this.head[1]);
  }
}

// Probabilities of logits at a temperature, cut by top-p, as in vqvae_lib.prior.sampling_distribution.
export function distribution(logits, temperature = 1, topP = 1) {
  const p = logSoftmax(Float64Array.from(logits, (value) => value / temperature)).map(Math.exp);
  if (topP >= 1) return p;
  const order = [...p.keys()].sort((a, b) => p[b] - p[a]), kept = new Float64Array(p.length);
  let sum = 0;
  for (const k of order) {
    if (sum >= topP) break;
    kept[k] = p[k];
    sum += p[k];
  }
  return kept.map((value) => value / sum);
}

// A number in [0, 1) that a seed and a place decide (mulberry32): redrawing the rest leaves the codes before it alone.
export function uniform(seed, place) {
  let t = (Math.imul(seed + 1, 0x9e3779b1) + Math.imul(place + 1, 0x6d2b79f5)) | 0;
  for (let round = 0; round < 2; round++) {
    t = Math.imul(t ^ (t >>> 15), 1 | t);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  }
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
}

export function draw(probabilities, u) {
  let sum = 0, last = 0;
  for (let k = 0; k < probabilities.length; k++) {
    if (!probabilities[k]) continue;
    sum += probabilities[last = k];
    if (u < sum) return k;
  }
  return last;
}
