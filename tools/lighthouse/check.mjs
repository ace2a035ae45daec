// node check.mjs BROWSER FLAGS ADDRESS …  One line of JSON for each address: scores, and what was held against it.
import { launch } from "chrome-launcher";
import lighthouse from "lighthouse";

const [chromePath, flags, ...addresses] = process.argv.slice(2);
const options = {
  logLevel: "error",
  onlyCategories: ["accessibility", "best-practices", "seo"],
  throttlingMethod: "provided", // speed is not asked for: no slow network is played, and no waiting for a quiet processor
  pauseAfterLoadMs: 500,
  networkQuietThresholdMs: 500,
  cpuQuietThresholdMs: 0,
  disableFullPageScreenshot: true,
};

const browser = await launch({ chromePath, chromeFlags: flags.split(" ") });
for (const address of addresses) {
  const { lhr } = await lighthouse(address, { ...options, port: browser.port });
  const scores = Object.fromEntries(Object.values(lhr.categories).map(({ id, score }) => [id, score]));
  const weighed = new Set(Object.values(lhr.categories).flatMap(({ auditRefs }) =>
    auditRefs.filter(({ weight }) => weight > 0).map(({ id }) => id)));
  const faults = Object.values(lhr.audits)
    .filter(({ id, score }) => weighed.has(id) && score !== null && score < 1)
    .map(({ id, details }) => `${id}: ${details?.items?.[0]?.node?.snippet ?? JSON.stringify(details?.items?.[0] ?? "")}`);
  console.log(JSON.stringify({ address, scores, faults, error: lhr.runtimeError?.message }));
}
await browser.kill();
