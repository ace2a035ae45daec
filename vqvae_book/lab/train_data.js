// Pictures to train on, 28 x 28 bytes each: a sheet of MNIST that the site carries, or glyphs drawn here.
import { generator } from "./train.js";

const COLUMNS = 64, TEST = 256; // of the sheet, and its last pictures, which are MNIST's test images (train_sheet.py)
const DIGITS = [ // strokes, in the box from (-1, -1) to (1, 1)
  [[0, -1, -0.5, -0.7, -0.6, 0, -0.5, 0.7, 0, 1, 0.5, 0.7, 0.6, 0, 0.5, -0.7, 0, -1]],
  [[-0.4, -0.6, 0, -1, 0, 1]],
  [[-0.5, -0.6, -0.2, -1, 0.4, -0.9, 0.5, -0.4, -0.5, 1, 0.6, 0.9]],
  [[-0.5, -0.9, 0.2, -1, 0.5, -0.6, 0, -0.1, 0.5, 0.4, 0.3, 0.9, -0.2, 1, -0.5, 0.8]],
  [[0.3, 1, 0.3, -1, -0.6, 0.3, 0.7, 0.3]],
  [[0.5, -1, -0.4, -1, -0.5, -0.1, 0.1, -0.3, 0.5, 0.2, 0.3, 0.9, -0.5, 0.9]],
  [[0.4, -1, -0.3, -0.4, -0.5, 0.4, -0.1, 1, 0.4, 0.8, 0.4, 0.2, -0.1, 0, -0.5, 0.4]],
  [[-0.6, -0.9, 0.6, -1, -0.1, 1]],
  [[0, 0, -0.5, -0.5, -0.2, -1, 0.3, -1, 0.5, -0.5, 0, 0, -0.5, 0.5, -0.2, 1, 0.3, 1, 0.5, 0.5, 0, 0]],
  [[0.5, -0.3, 0, 0, -0.5, -0.4, -0.2, -1, 0.3, -1, 0.5, -0.5, 0.4, 0.4, 0, 1]],
];

/** `count` digits of straight strokes, each rotated, slanted, stretched and moved at random; as bytes. */
export function glyphs(count, seed = 0) {
  const random = generator(seed), bytes = new Uint8Array(count * 784), spread = (a, b) => a + (b - a) * random();
  for (let n = 0; n < count; n++) {
    const angle = spread(-0.26, 0.26), slant = spread(-0.25, 0.25), width = spread(6.5, 9.5), height = spread(7.5, 9.5);
    const x0 = spread(12.5, 15.5), y0 = spread(12.5, 15.5), thick = spread(1, 1.8), cos = Math.cos(angle), sin = Math.sin(angle);
    for (const stroke of DIGITS[Math.floor(random() * 10)]) {
      const points = [];
      for (let i = 0; i < stroke.length; i += 2) {
        const x = width * (stroke[i] - slant * stroke[i + 1]), y = height * stroke[i + 1];
        points.push([x0 + cos * x - sin * y, y0 + sin * x + cos * y]);
      }
      for (let i = 0; i + 1 < points.length; i++) line(bytes.subarray(n * 784, (n + 1) * 784), points[i], points[i + 1], thick);
    }
  }
  return bytes;
}

/** A line with soft edges on a picture: each pixel the brighter of what it was and what the line makes it. */
function line(picture, [ax, ay], [bx, by], thick) {
  const dx = bx - ax, dy = by - ay, square = dx * dx + dy * dy || 1, reach = thick + 1;
  const range = (a, b) => [Math.max(0, Math.floor(Math.min(a, b) - reach)), Math.min(27, Math.ceil(Math.max(a, b) + reach))];
  const [left, right] = range(ax, bx), [top, bottom] = range(ay, by);
  for (let y = top; y <= bottom; y++) for (let x = left; x <= right; x++) {
    const share = Math.min(1, Math.max(0, ((x - ax) * dx + (y - ay) * dy) / square));
    const far = Math.hypot(x - ax - share * dx, y - ay - share * dy);
    picture[y * 28 + x] = Math.max(picture[y * 28 + x], 255 * Math.min(1, Math.max(0, thick + 0.5 - far)));
  }
}

/** Glyphs to train and test on, the same each time. */
export const glyphData = () => ({ train: glyphs(3744, 1), test: glyphs(TEST, 2) });

/** MNIST from the site's sheet at `url`, or null where there is none. It works only in a page, since it decodes a picture. */
export async function sheetData(url) {
  const answer = await fetch(url);
  if (!answer.ok) return null;
  const bitmap = await createImageBitmap(await answer.blob(), { colorSpaceConversion: "none" });
  const canvas = Object.assign(document.createElement("canvas"), { width: bitmap.width, height: bitmap.height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  const bytes = new Uint8Array((bitmap.width * bitmap.height) | 0);
  for (let n = 0; n * 784 < bytes.length; n++) for (let i = 0; i < 784; i++) {
    const x = (n % COLUMNS) * 28 + (i % 28), y = Math.floor(n / COLUMNS) * 28 + Math.floor(i / 28);
    bytes[n * 784 + i] = data[4 * (y * bitmap.width + x)];
  }
  return { train: bytes.slice(0, -TEST * 784), test: bytes.slice(-TEST * 784) };
}
