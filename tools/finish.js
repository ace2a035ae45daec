// node finish.js SITE  book_site.py runs this on the pages that Sphinx has made. It sets their math, and has them load
// one style sheet and one script, cut to what any page uses, with fonts of the letters that occur.
const { createHash } = require("node:crypto");
const { readFileSync, readdirSync, rmSync, writeFileSync } = require("node:fs");
const { posix } = require("node:path");
const katex = require("katex");
const { PurgeCSS } = require("purgecss");
const subset = require("subset-font");

const MATHS = /(<(span|div)[^>]*\sclass="[^"]*\bmath\b[^>]*>)([^<]*)(?=<\/\2>)/g;
const SHEET = /<link\b[^>]*\shref="([./]*_static\/)([\w./-]+\.css)[^>]*>\s*/g;
const SCRIPT = /<(?:script|link)\b[^>]*\s(?:src|href)="([./]*_static\/)(?!vendor|searchtools|language_data)([\w./-]+\.js)[^>]*>(?:<\/script>)?\s*/g;
const SEARCH = /<script src="[./]*(_static\/(searchtools|language_data)|searchindex)\.js[^>]*><\/script>\s*/g;
const PICTURE = /<img\b(?![^>]*\swidth=)[^>]*\ssrc="([^"]*_images\/[^"]+\.webp)"/g;
const FINISHED = /(?<=\/)book\.(css|js)\?v=\w+/g; // of a page that Sphinx has not written anew
const LATER = /(<script class="later" type="application\/json")>([^<]+)(?=<\/script>)/g;
const EARLY = /fa-solid|KaTeX_(Main-Regular|Math-Italic)/; // fonts within the sheet: what comes later would move lines
const LOAD = `<script>for (const font of ["1em KaTeX_Main", "italic 1em KaTeX_Math"]) document.fonts.load(font);</script>\n`;
// The theme asks every block whether it scrolls, and between two the page is laid out anew; site.js asks what comes near.
const STOPS = /document\.querySelectorAll\(\["pre".{0,200}?forEach\(\w=>\{\w\.tabIndex=.{0,90}?\}\)/;
const RUNTIME = [/tooltip/]; // in the names of classes that scripts give
const ENTITIES = { "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#39;": "'", "&amp;": "&" };

const site = process.argv[2];
const file = (name) => `${site}/_static/${name}`;
const read = (name) => readFileSync(name, "utf8");
const hash = (data) => createHash("sha256").update(data).digest("hex").slice(0, 8);
const written = (name, data) => {
  writeFileSync(file(name), data);
  return `${name}?v=${hash(data)}`;
};

function typeset(page, start, tex, displayMode) {
  try {
    return start + katex.renderToString(tex.replace(/&[\w#]+;/g, (name) => ENTITIES[name] ?? name), { displayMode, strict: "error" });
  } catch ({ message }) {
    console.error(`${page}: a formula can't be set: ${tex}: ${message}`);
    process.exitCode = 1;
  }
}

function sheet(name) { // with what it imports, and with paths from _static
  return read(file(name)).replace(/@import "(.+?)";/g, (_, path) => sheet(posix.join(posix.dirname(name), path)))
    .replace(/url\((?!["']?(?:data:|#))["']?(.+?)["']?\)/g, (_, path) => `url(${posix.join(posix.dirname(name), path)})`);
}

async function main() {
  const names = readdirSync(site, { recursive: true }).filter((name) => /^(?!_static).*\.html$/.test(name));
  const pages = names.map((name) => read(`${site}/${name}`).replace(name === "search.html" ? "" : SEARCH, "")
    .replace(MATHS, (_, start, tag, tex) => typeset(name, start, tex, tag === "div")));
  const all = pages.join("\n"), tags = all.match(/<[a-z][^>]*>/gi).join("\n");
  // What the page with most of them lists: there is each of them, in its order.
  const listed = (pattern) => pages.map((page) => [...new Set([...page.matchAll(pattern)].map(([, , name]) => name))])
    .reduce((most, names) => (names.length > most.length ? names : most));
  const scripts = listed(SCRIPT).filter((name) => !/fontawesome|documentation_options/.test(name));
  const script = scripts.map((name) => `;\n${read(file(name)).replace(/^\/\/# sourceMapping.*/m, "")}`).join("\n");
  if (!STOPS.test(script)) throw new Error("The theme's script has changed: look for tabIndex in it, and mend STOPS in finish.js.");
  const words = [tags, script, read(file("searchtools.js")), read(`${__dirname}/pdf.js`)].join("\n"); // these give classes
  const purge = { content: [{ raw: words, extension: "txt" }], safelist: { greedy: RUNTIME }, fontFace: true };
  let [{ css }] = await new PurgeCSS().purge({ ...purge, css: [{ raw: listed(SHEET).map(sheet).join("\n") }] });
  css = css.replace(/\/\*.*?\*\//gs, "");
  const icons = [...css.matchAll(/\\(f\w{2,3})\b/g)].map(([, code]) => String.fromCodePoint(`0x${code}`)).join("");
  for (const [source, name] of css.matchAll(/src:\s*url\(([\w./-]+\.woff2)\)[^;}]*/g)) {
    const font = await subset(readFileSync(file(name)), all + css + icons, { targetFormat: "woff2" });
    const inside = `data:font/woff2;base64,${font.toString("base64")}`;
    css = css.replace(source, `src:url(${EARLY.test(name) ? inside : written(`book-${posix.basename(name)}`, font)})`);
  }
  const [style, code] = [written("book.css", css), written("book.js", script.replace(STOPS, "0"))];
  // Scripts in the page set more options. The theme's own script would choose between light and dark after the first paint.
  const early = `if (document.documentElement.dataset.mode === "auto") document.documentElement.dataset.theme =
    matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";`;
  const options = `<script>${read(file("documentation_options.js"))}\n${early}</script>\n`;
  pages.forEach((page, i) => {
    const once = (make, count = 0) => (_, root) => (count++ ? "" : make(root));
    let pictures = 0;
    const fonts = page.includes('class="katex"') ? LOAD : "";
    page = page.search(FINISHED) > 0 ? page.replace(FINISHED, (_, kind) => (kind === "css" ? style : code)) : page
      .replace(SHEET, once((root) => `<link rel="stylesheet" href="${root}${style}" />\n${fonts}`))
      .replace(SCRIPT, once((root) => `${options}<script defer src="${root}${code}"></script>\n`))
      .replace(/<script (?=src=)(?![^>]*\sdefer)/g, "<script defer ")
      .replace(/(_images\/[^"]+)\.png"/g, '$1.webp"')
      .replace(PICTURE, (start, path) => { // a lossless WebP has 14 bits each for its width and height, less 1
        const bits = readFileSync(posix.join(site, posix.dirname(names[i]), path)).readUInt32LE(21);
        const size = `width="${(bits & 0x3fff) + 1}" height="${((bits >> 14) & 0x3fff) + 1}"`;
        return `${start} ${size}${pictures++ ? ' loading="lazy"' : ""}`;
      })
      .replace(LATER, (_, start, json) => { // into a script, as explorer.html says
        const data = `document.currentScript.later=${json}`, path = `_static/${written(`later-${hash(data)}.js`, data)}`;
        return `${start} data-src="${posix.relative(posix.dirname(names[i]), path)}">`;
      });
    writeFileSync(`${site}/${names[i]}`, page);
  });
  rmSync(file("vendor/katex/dist"), { recursive: true, force: true }); // what pages need of it is in the sheet
}

main();
