// The arithmetic of the networks on typed arrays. A map of features is a Float32Array of positions by channels: the
// channels of a position are adjacent, positions are in reading order.

// (rows, I) times the transpose of (O, I), plus bias (O): (rows, O). Four outputs at a time read a row once.
export function linear(x, { weight, bias, O, I }, rows = x.length / I) {
  const y = new Float32Array(rows * O);
  for (let r = 0; r < rows; r++) {
    const at = r * I;
    for (let o = 0; o < O; o += 4) {
      if (o + 4 > O) {
        for (let rest = o; rest < O; rest++) {
          let sum = bias ? bias[rest] : 0;
          for (let i = 0, w = rest * I; i < I; i++) sum += x[at + i] * weight[w + i];
          y[r * O + rest] = sum;
        }
        break;
      }
      let a = 0, b = 0, c = 0, d = 0;
      const w = o * I, v = w + I, u = v + I, t = u + I;
      for (let i = 0; i < I; i++) {
        const value = x[at + i];
        a += value * weight[w + i];
        b += value * weight[v + i];
        c += value * weight[u + i];
        d += value * weight[t + i];
      }
      const out = r * O + o;
      y[out] = a + (bias ? bias[o] : 0);
      y[out + 1] = b + (bias ? bias[o + 1] : 0);
      y[out + 2] = c + (bias ? bias[o + 2] : 0);
      y[out + 3] = d + (bias ? bias[o + 3] : 0);
    }
  }
  return y;
}

// torch's weight (O, C, height, width) as rows (O, height * width * C), for patches whose channels are adjacent.
export function kernel({ data, shape: [O, C, height, width] }, bias) {
  const weight = new Float32Array(data.length), area = height * width;
  for (let o = 0; o < O; o++) {
    for (let c = 0; c < C; c++) {
      for (let k = 0; k < area; k++) weight[(o * area + k) * C + c] = data[(o * C + c) * area + k];
    }
  }
  return { weight, bias: bias?.data, O, I: area * C, C, height, width };
}

// A convolution of a map with sides (rows, columns): its patches as rows, then one product.
export function convolve(x, sides, layer, stride, padding) {
  const [rows, columns] = sides, { C, height, width, I } = layer;
  const [h, w] = [[rows, height], [columns, width]].map(([side, size]) => Math.floor((side + 2 * padding - size) / stride) + 1);
  const patches = new Float32Array(h * w * I);
  let at = 0;
  for (let i = 0; i < h; i++) {
    for (let j = 0; j < w; j++) {
      for (let a = i * stride - padding; a < i * stride - padding + height; a++) {
        for (let b = j * stride - padding; b < j * stride - padding + width; b++, at += C) {
          if (a < 0 || b < 0 || a >= rows || b >= columns) continue;
          const from = (a * columns + b) * C;
          for (let c = 0; c < C; c++) patches[at + c] = x[from + c];
        }
      }
    }
  }
  return linear(patches, layer, h * w);
}

// torch's weight (C, O, 4, 4) of a transposed convolution as rows (16 * O, C): what a position adds to its surroundings.
export function transposedKernel({ data, shape: [C, O, height, width] }, bias) {
  const weight = new Float32Array(data.length), area = height * width;
  for (let c = 0; c < C; c++) {
    for (let o = 0; o < O; o++) {
      for (let k = 0; k < area; k++) weight[(k * O + o) * C + c] = data[(c * O + o) * area + k];
    }
  }
  return { weight, O: area * O, I: C, channels: O, height, width, shift: bias.data };
}

// A transposed convolution with stride 2 and padding 1, which doubles both sides.
export function spread(x, [rows, columns], layer) {
  const parts = linear(x, layer), { channels, height, width, shift, O } = layer;
  const y = new Float32Array(4 * rows * columns * channels);
  for (let p = 0; p < y.length; p++) y[p] = shift[p % channels];
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      for (let a = 0; a < height; a++) {
        for (let b = 0; b < width; b++) {
          const [row, column] = [2 * i - 1 + a, 2 * j - 1 + b];
          if (row < 0 || column < 0 || row >= 2 * rows || column >= 2 * columns) continue;
          const to = (row * 2 * columns + column) * channels, from = (i * columns + j) * O + (a * width + b) * channels;
          for (let c = 0; c < channels; c++) y[to + c] += parts[from + c];
        }
      }
    }
  }
  return y;
}

export function relu(x) {
  for (let i = 0; i < x.length; i++) if (x[i] < 0) x[i] = 0;
  return x;
}

export function sigmoid(x) {
  for (let i = 0; i < x.length; i++) x[i] = 1 / (1 + Math.exp(-x[i]));
  return x;
}

// tanh(a) * sigmoid(b) of rows (a, b).
export function gate(x, rows, C) {
  const y = new Float32Array(rows * C);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < C; c++) y[r * C + c] = Math.tanh(x[2 * r * C + c]) / (1 + Math.exp(-x[(2 * r + 1) * C + c]));
  }
  return y;
}

export function logSoftmax(logits) {
  let most = -Infinity, sum = 0;
  for (const value of logits) most = Math.max(most, value);
  for (const value of logits) sum += Math.exp(value - most);
  return Float64Array.from(logits, (value) => value - most - Math.log(sum));
}
