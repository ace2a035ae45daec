// A product of matrices in WebAssembly: what a training step spends its time on. The module has one function, written
// here byte by byte, so that the page needs no compiler and loads nothing. Each number is a product and a sum in
// float32, in a fixed order: the same on every machine. (https://webassembly.github.io/spec)

const I32 = 0x7f, V128 = 0x7b, VOID = 0x40;
const ADD = 0x6a, SUB = 0x6b, MUL = 0x6c, LE = 0x4d; // of 32-bit integers
const PARAMETERS = ["a", "aRow", "aColumn", "b", "c", "M", "N", "K"]; // addresses and strides in bytes
const INTEGERS = ["i", "j", "k", "bRow", "pb", "pc", "p0", "p1", "p2", "p3"];
const VECTORS = ["x", "b0", "b1", "s00", "s01", "s10", "s11", "s20", "s21", "s30", "s31"];
const NAMES = [...PARAMETERS, ...INTEGERS, ...VECTORS];

const number = (n) => { // LEB128: seven bits per byte
  const bytes = [];
  for (; n > 63; n >>>= 7) bytes.push((n & 127) | 128);
  return [...bytes, n];
};
const get = (name) => [0x20, NAMES.indexOf(name)];
const set = (name, ...code) => [...code.flat(), 0x21, NAMES.indexOf(name)];
const int = (n) => [0x41, ...number(n)];
const repeat = (...body) => [0x03, VOID, ...body.flat(), 0x0b];
const ifTrue = (condition, ...body) => [...condition, 0x04, VOID, ...body.flat(), 0x0b];
const again = (condition) => [...condition, 0x0d, 0];
const step = (name, by) => set(name, get(name), by, [ADD]);
const simd = (...code) => [0xfd, ...code];
const load = (name, offset) => [...get(name), ...simd(0x00, 2, offset)];
const spread = (name) => [...get(name), ...simd(0x09, 2, 0)]; // one number, four times
const zero = simd(0x0c, ...Array(16).fill(0));
const plusProduct = (sum, x, y) => set(sum, get(sum), get(x), get(y), simd(0xe6, 1), simd(0xe4, 1));
const store = (name, sum, offset) => [...get(name), ...get(sum), ...simd(0x0b, 2, offset)];

/** All rows of the next 4 or 8 columns, from column j: four rows at a time, whose sums stay in registers. */
function columns(vectors) {
  const rows = [0, 1, 2, 3], parts = [...Array(vectors).keys()];
  return repeat(ifTrue([...get("j"), ...int(4 * vectors), ADD, ...get("N"), LE],
    set("i", int(0)),
    repeat(
      rows.flatMap((r) => parts.flatMap((p) => set(`s${r}${p}`, zero))),
      set("p0", get("a"), get("i"), get("aRow"), [MUL, ADD]),
      [1, 2, 3].flatMap((r) => set(`p${r}`, get(`p${r - 1}`), get("aRow"), [ADD])),
      set("pb", get("b"), get("j"), int(4), [MUL, ADD]),
      set("k", get("K")),
      repeat(
        parts.flatMap((p) => set(`b${p}`, load("pb", 16 * p))),
        rows.flatMap((r) => [
          ...set("x", spread(`p${r}`)), ...step(`p${r}`, get("aColumn")),
          ...parts.flatMap((p) => plusProduct(`s${r}${p}`, "x", `b${p}`)),
        ]),
        step("pb", get("bRow")),
        set("k", get("k"), int(1), [SUB]), again(get("k"))),
      set("pc", get("c"), get("i"), get("bRow"), [MUL, ADD], get("j"), int(4), [MUL, ADD]),
      rows.flatMap((r) => [...parts.flatMap((p) => store("pc", `s${r}${p}`, 16 * p)), ...step("pc", get("bRow"))]),
      step("i", int(4)),
      again([...get("i"), ...int(4), ADD, ...get("M"), LE])),
    step("j", int(4 * vectors)),
    [0x0c, 1])); // back to the test: are there as many columns again?
}

const list = (...items) => [...number(items.length), ...items.flat()];
const section = (id, ...content) => [id, ...number(content.flat().length), ...content.flat()];
const name = (text) => list(...[...text].map((letter) => letter.charCodeAt(0)));

/** The module's bytes: it imports a memory and exports `matmul`. */
export function matmulModule() {
  const body = [
    ...list([...number(INTEGERS.length), I32], [...number(VECTORS.length), V128]),
    ...set("bRow", get("N"), int(4), [MUL]), ...columns(2), ...columns(1), 0x0b,
  ];
  return new Uint8Array([
    0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, // "\0asm", version 1
    ...section(1, list([0x60, ...list(...PARAMETERS.map(() => [I32])), 0])),
    ...section(2, list([...name("page"), ...name("memory"), 2, 0, 1])),
    ...section(3, list([0])),
    ...section(7, list([...name("matmul"), 0, 0])),
    ...section(10, list([...number(body.length), ...body])),
  ]);
}
