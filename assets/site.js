// Mends what axe-core finds in the theme itself.
document.addEventListener("DOMContentLoaded", () => {
  // These show more text than their aria-label says; without it the text is the name.
  const named = document.querySelectorAll(".search-button-field, .theme-switch-button");
  named.forEach((element) => element.removeAttribute("aria-label"));
  // The sidebar is no landmark: screen readers could not jump to it.
  const sidebar = document.getElementById("pst-primary-sidebar");
  sidebar?.setAttribute("role", "complementary");
  sidebar?.setAttribute("aria-label", "Book");
});

// What is copied has its math as TeX, not as the letters of its markup.
document.addEventListener("copy", (event) => {
  const copied = document.createElement("div");
  const selection = getSelection();
  for (let i = 0; i < selection.rangeCount; i++) copied.append(selection.getRangeAt(i).cloneContents());
  if (!copied.querySelector(".katex-mathml")) return;
  for (const math of copied.querySelectorAll(".katex")) {
    const tex = math.querySelector("annotation")?.textContent ?? "", dollars = math.closest(".katex-display") ? "$$" : "$";
    math.replaceWith(dollars + tex + dollars);
  }
  event.clipboardData.setData("text/html", copied.innerHTML);
  event.clipboardData.setData("text/plain", copied.textContent);
  event.preventDefault();
});

// What is wider than its place scrolls, by keyboard too. Each is asked when it comes near: before that, it has no layout.
const scrollers = new IntersectionObserver((seen) => {
  const wide = seen.filter(({ isIntersecting, target }) => isIntersecting && target.scrollWidth > target.clientWidth);
  wide.forEach(({ target }) => (target.tabIndex = 0));
}, { rootMargin: "50%" });
window.addEventListener("load", () => {
  const blocks = "pre, div.math, .cell_output > .output, .cell_output:has(> img), .pst-scrollable-table-container";
  document.querySelectorAll(blocks).forEach((block) => scrollers.observe(block));
});

// sw.js keeps the page for when there is no network, with all that it embeds: also what has not come near yet.
window.addEventListener("load", async () => {
  if (!/^http/.test(location.protocol) || !navigator.serviceWorker) return; // a disk needs no network
  const root = new URL(document.documentElement.dataset.content_root, location.href);
  try {
    await navigator.serviceWorker.register(new URL("sw.js", root));
  } catch {
    return; // a browser that is told to keep nothing
  }
  const near = performance.getEntriesByType("resource").map(({ name }) => name).filter((name) => !/\.html\b/.test(name));
  const later = [...document.querySelectorAll(`link[rel=icon], img[src*="/"], [data-src]`)];
  const embeds = [root, ...near, ...later.map((one) => one.dataset.src || one.src || one.href)]
    .map((one) => new URL(one, location.href).href);
  const { active } = await navigator.serviceWorker.ready;
  active.postMessage([...new Set(embeds)].filter((one) => one.startsWith(root.href)));
});

// From a disk, where a script may read no other file, the search lists what it finds without the passages.
const finds = document.getElementById("search-results");
if (finds && location.protocol === "file:") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
  finds.before("The passages that a search finds are shown by make serve: this page was opened from a disk.");
}
