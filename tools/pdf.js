// pdf.py runs this in the site's first page: it puts every page of the book there, one after the other, for printing.
async ({ files, title, lines, site, live, stills }) => {
  const nameOf = (file) => file.replace(/\.html$/, "").replaceAll("/", "-");
  const said = (head) => [...head.querySelectorAll(".katex-mathml")].map((math) => math.textContent); // a second time
  const textOf = (head) => said(head).reduce((text, tex) => text.replace(tex, ""), head.textContent).replace(/\s+/g, " ").trim();
  const entries = []; // of the contents: pages, and their headings of the second level
  const small = "font: 8px sans-serif; }"; // the numbers of all pages, and above those of each section its title
  const rules = [`@page { size: A4; margin: 18mm 16mm 20mm; @bottom-center { content: counter(page); ${small} }`];
  const names = new Map(files.map((file) => [new URL(file, location.origin).pathname, nameOf(file)]));

  function element(tag, properties, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  // A link to a page of the book leads to its place in the PDF; one to another file of the site, to the site.
  function mendLink(link, base) {
    const url = new URL(link.getAttribute("href"), base);
    if (url.origin !== location.origin) return;
    const name = names.get(url.pathname);
    if (name) link.href = `#${name}${url.hash.length > 1 ? `--${url.hash.slice(1)}` : ""}`;
    else if (site) link.href = site + url.pathname.slice(1) + url.hash;
    else link.removeAttribute("href");
  }

  async function section(file) {
    const base = new URL(file, location.origin);
    const response = await fetch(base);
    if (!response.ok) throw new Error(`${file}: ${response.status}`);
    const article = new DOMParser().parseFromString(await response.text(), "text/html").querySelector(".bd-article");
    article.querySelectorAll(".headerlink").forEach((link) => link.remove());
    const title = textOf(article.querySelector("h1"));
    article.querySelectorAll("a[href]").forEach((link) => mendLink(link, base));
    article.querySelectorAll("img").forEach((image) => {
      Object.assign(image, { src: new URL(image.getAttribute("src"), base).href, loading: "eager" });
    });
    article.querySelectorAll("details:not(.hide)").forEach((details) => (details.open = true));
    article.querySelectorAll("pre").forEach((code) => code.classList.toggle("short", code.textContent.split("\n").length < 16));
    article.querySelectorAll(live).forEach((widget, i) => {
      const still = element("img", { src: stills[file][i], alt: widget.ariaLabel });
      const where = site ? [": ", element("a", { href: site + file }, site + file)] : [];
      const online = element("p", { className: "online" }, `Interactive on the site, page “${title}”`, ...where);
      widget.replaceWith(widget.matches("figure") ? widget : still, online);
    });
    article.querySelectorAll("script").forEach((script) => script.remove());
    article.querySelectorAll("[id]").forEach((target) => (target.id = `${nameOf(file)}--${target.id}`));
    entries.push({ title, id: nameOf(file), level: 1 });
    for (const head of article.querySelectorAll("section[id] > h2")) entries.push({ title: textOf(head), id: head.parentElement.id, level: 2 });
    rules.push(`@page ${nameOf(file)} { @top-right { content: ${JSON.stringify(title)}; ${small} }`);
    return element("section", { id: nameOf(file), className: "printed", style: `page: ${nameOf(file)}` }, ...article.childNodes);
  }

  const sections = [];
  for (const file of files) sections.push(await section(file)); // one by one: their order is that of the entries
  const contents = entries.map(({ title, id, level }) => element("li", { className: `level-${level}` },
    element("a", { href: `#${id}` }, title), element("span", { className: "number" })));
  const front = element("section", { className: "printed cover" }, element("h1", {}, title));
  front.append(...lines.map((line) => element("p", {}, line)), element("ul", {}, ...contents));
  const article = document.querySelector(".bd-article");
  document.getElementById("jb-print-docs-body")?.remove(); // the first page's own title and contents
  article.replaceChildren(front, ...sections, element("style", {}, rules.join("\n")));
  await Promise.all([...article.querySelectorAll("img")].map((image) => image.decode()));
  await document.fonts.ready;
  // What is wider than the paper shrinks: paper does not scroll.
  for (const wide of article.querySelectorAll("div.math, table")) {
    const room = wide.closest("section.printed").clientWidth;
    const needed = Math.max(wide.scrollWidth, ...[...wide.children].map((child) => child.scrollWidth));
    if (needed > room) wide.style.zoom = room / needed;
  }
  const links = [...article.querySelectorAll('a[href^="#"]')].map((link) => link.getAttribute("href"));
  const dangling = links.filter((href) => !document.getElementById(decodeURIComponent(href.slice(1))));
  return { entries, faults: dangling.map((href) => `leads nowhere: ${href}`) };
};
