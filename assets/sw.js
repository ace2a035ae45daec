// The book without a network: what has been read is kept, with all that it embeds. The server is asked first, so a rebuilt
// page shows on the next visit. site.js brings this to work, and says what a page embeds.
const NAME = `vqvae-book ${registration.scope}`; // other books may lie on the same host
const NAMED_AFTER_CONTENT = /[?]v=|\/_images\/[0-9a-f]{64}\./; // the same name is the same file
const LIST = "/embeds"; // behind the address of a page
const MISSING = `<!doctype html><html lang="en"><meta name="viewport" content="width=device-width"><title>No network</title>
<p>There is no network, and this page has not been opened before. Pages that have been opened are kept.</p></html>`;

addEventListener("install", () => skipWaiting());
addEventListener("activate", (event) => event.waitUntil(clients.claim()));

async function answer({ mode, url }) {
  const cache = await caches.open(NAME);
  const kept = NAMED_AFTER_CONTENT.test(url) && (await cache.match(url));
  if (kept) return kept;
  try {
    const response = await fetch(url, { cache: "no-cache", redirect: mode === "navigate" ? "manual" : "follow" });
    if (response.ok) await cache.put(url, response.clone());
    return response;
  } catch (error) {
    const old = await cache.match(url, { ignoreSearch: true }); // a kept page may ask for an older style sheet
    if (old) return old;
    if (mode === "navigate") return new Response(MISSING, { headers: { "Content-Type": "text/html; charset=utf-8" } });
    throw error;
  }
}

async function keep(page, embeds) {
  const cache = await caches.open(NAME);
  await cache.put(page + LIST, new Response(JSON.stringify(embeds)));
  for (const url of [page, ...embeds]) {
    if (!(await cache.match(url))) await cache.add(url).catch(() => {}); // what is missing now is asked for next time
  }
  const names = (await cache.keys()).map(({ url }) => url), wanted = new Set();
  for (const list of names.filter((name) => name.endsWith(LIST))) {
    [list, list.slice(0, -LIST.length), ...(await (await cache.match(list)).json())].forEach((url) => wanted.add(url));
  }
  // Of an earlier build, or never embedded; what the lab has fetched stays.
  for (const name of names) if (!wanted.has(name) && !name.includes("/_static/lab/")) await cache.delete(name);
}

addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  if (method === "GET" && url.startsWith(registration.scope)) event.respondWith(answer(event.request));
});
addEventListener("message", (event) => event.waitUntil(keep(event.source.url.split(/[?#]/)[0], event.data)));
