// The models in a thread of their own: the page asks, and goes on drawing.
import { CELLS, PixelCNN, VQVAE, distribution, draw, readWeights, uniform } from "./models.js";
import { logSoftmax } from "./tensor.js";

const models = new Map(); // name -> promise of a model
let listed;

async function fetched(name) {
  const answer = await fetch(new URL(name, self.location.href));
  if (!answer.ok) throw new Error(`${name} can't be loaded (${answer.status}).`);
  return answer;
}

function model(name) {
  if (!models.has(name)) models.set(name, (async () => {
    listed ??= await (await fetched("lab.json")).json();
    const about = listed.models[name], buffer = await (await fetched(about.file)).arrayBuffer();
    return new { VQVAE, PixelCNN }[about.class](readWeights(buffer, about.layout));
  })());
  return models.get(name);
}

// What the page may ask; each answer is for the model that is named.
const answers = {
  async encode(name, image) {
    const vq = await model(name), codes = vq.encode(image);
    return { codes, picture: vq.decode(codes) };
  },
  decode: async (name, codes) => (await model(name)).decode(codes),
  between: async (name, from, to, share) => (await model(name)).between(from, to, share),
  alike: async (name, code) => (await model(name)).alike(code),
  patches: async (name) => (await model(name)).patches(),
  keep: (name, tensors) => void models.set(name, new VQVAE(tensors)),
  load: async (name) => void (await model(name)),
  // -log2 p of each code, given the class.
  async bits(name, codes, label) {
    return (await model(name)).bits(codes, label);
  },
  // The distribution of one code, the code that a seed draws from it, and its bits under the prior itself.
  async next(name, codes, { label, temperature, topP, seed }, place) {
    const logits = (await model(name)).logits(codes, label, place), probabilities = distribution(logits, temperature, topP);
    const code = draw(probabilities, uniform(seed, place));
    return { probabilities, code, bits: -logSoftmax(logits)[code] / Math.LN2 };
  },
  async sample(name, codes, settings, from = 0) {
    const all = [...codes];
    for (let place = from; place < CELLS; place++) all[place] = (await answers.next(name, all, settings, place)).code;
    return all;
  },
};

self.onmessage = async ({ data: { id, method, given } }) => {
  try {
    self.postMessage({ id, value: await answers[method](...given) });
  } catch (error) {
    self.postMessage({ id, error: error.message });
  }
};
