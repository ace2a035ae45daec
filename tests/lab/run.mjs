// node run.mjs FOLDER  answers FOLDER/asked.json with the page's own code, into FOLDER/answers.json.
import { readFileSync, writeFileSync } from "node:fs";
import * as models from "../../vqvae_book/lab/models.js";

const folder = process.argv[2], file = (name) => `${folder}/${name}`;
const { layout, kind, calls } = JSON.parse(readFileSync(file("asked.json")));
const bytes = kind ? readFileSync(file("weights.bin")) : null;
const model = kind && new models[kind](models.readWeights(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length), layout));
const plain = (value) => (ArrayBuffer.isView(value) ? [...value] : value);
const answers = calls.map(([name, ...given]) => plain(model ? model[name](...given) : models[name](...given)));
writeFileSync(file("answers.json"), JSON.stringify(answers));
