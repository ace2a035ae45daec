// One run in a thread of its own. The page says {start: settings, data}, {go: true or false}, {step: true}, {keep: true};
// the thread answers {entry, losses, shown, troubles, ...} each time it has measured, and stands still when it is paused.
import { Run, troubles } from "./train.js";
import { Memory } from "./train_model.js";

const memory = new Memory(); // for all runs of this thread, so that it doesn't grow
let run = null, history = [], since = [], going = false, turning = false, last = null;

const mean = (name) => since.reduce((sum, losses) => sum + losses[name], 0) / since.length;

function report() {
  const losses = since.length ? { recon_loss: mean("recon_loss"), vq_loss: mean("vq_loss"), total_loss: mean("total_loss") } : null;
  since = [];
  const entry = { ...run.measure(), ...losses };
  history.push(entry);
  const { config, meanPicture, done } = run, named = troubles(history, { ...config, meanPicture });
  if (named.includes("finite")) going = false;
  postMessage({ entry, shown: run.show(), troubles: named, done, ms: last, meanPicture, ended: done || named.includes("finite") });
}

function advance() {
  const start = performance.now(), losses = run.advance();
  last = performance.now() - start;
  since.push(losses);
  const every = Math.max(5, Math.round(run.config.steps / 40));
  return run.step % every === 0 || run.done || !Number.isFinite(losses.total_loss);
}

async function turn() {
  if (turning) return;
  turning = true;
  while (going && !run.done) {
    if (advance()) report();
    await new Promise((resume) => setTimeout(resume)); // to hear what the page says
  }
  turning = going = false;
}

const answers = {
  start(settings, { data }) {
    [history, since, going] = [[], [], false];
    run = new Run(settings, data, memory);
    report();
  },
  go(on) {
    going = on && !run.done;
    if (going) turn();
    else if (since.length) report();
  },
  step() {
    if (run.done) return;
    advance();
    report();
  },
  keep: () => postMessage({ kept: run.kept() }),
};

self.onmessage = ({ data: message }) => {
  try {
    for (const [name, value] of Object.entries(message)) answers[name]?.(value, message);
  } catch (error) {
    postMessage({ error: error.message });
  }
};
