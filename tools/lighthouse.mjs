// node lighthouse.mjs BROWSER FLAGS RUNS ADDRESS …  As JSON, for each address: with 0 runs, why it has not full marks in two
// attempts, if so; else what so many visits on Lighthouse's slow phone give in performance, largest paint and blocking time.
import { launch } from "chrome-launcher";
import lighthouse from "lighthouse";

const [chromePath, flags, runs, ...addresses] = process.argv.slice(2);
const options = {
  logLevel: "error",
  onlyCategories: ["accessibility", "best-practices", "seo"],
  throttlingMethod: "provided", // speed is not asked for: no slow network is played, and no waiting for a quiet processor
  pauseAfterLoadMs: 500, networkQuietThresholdMs: 500, cpuQuietThresholdMs: 0, disableFullPageScreenshot: true,
};

async function ask(address, port) {
  const { lhr } = await lighthouse(address, { ...options, port });
  const short = Object.values(lhr.categories).filter(({ score }) => score !== 1);
  const weighed = new Set(short.flatMap(({ auditRefs }) => auditRefs.filter(({ weight }) => weight > 0).map(({ id }) => id)));
  const audits = Object.values(lhr.audits).filter(({ id, score }) => weighed.has(id) && score !== null && score < 1);
  const said = ({ details }) => details?.items?.[0]?.node?.snippet ?? JSON.stringify(details?.items?.[0]);
  const scores = short.map(({ id, score }) => `${id} ${score}`);
  return [...scores, lhr.runtimeError?.message, ...audits.map((audit) => `${audit.id}: ${said(audit)}`)].filter(Boolean).join("; ");
}

const SPEED = { "performance": "score", "largest-contentful-paint": "numericValue", "total-blocking-time": "numericValue" };

async function visit(address, port) {
  const { lhr } = await lighthouse(address, { logLevel: "error", onlyCategories: ["performance"], port });
  return Object.entries(SPEED).map(([id, value]) => (lhr.categories[id] ?? lhr.audits[id])[value]);
}

const browser = await launch({ chromePath, chromeFlags: flags.split(" ") });
const found = {};
for (const address of addresses) {
  if (Number(runs)) {
    found[address] = [];
    while (found[address].length < Number(runs)) found[address].push(await visit(address, browser.port));
    continue;
  }
  const reason = (await ask(address, browser.port)) && (await ask(address, browser.port));
  if (reason) found[address] = reason;
}
console.log(JSON.stringify(found));
await browser.kill();
