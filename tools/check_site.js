// What check_site.py asks of a page: what is wrong with it, where its links lead, where links to it may lead.
() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const content = (selector, name) => document.querySelector(selector)?.getAttribute(name)?.trim();
  const said = {
    lang: document.documentElement.lang,
    title: document.title.trim(),
    description: content('meta[name="description"]', "content"),
    favicon: content('link[rel~="icon"]', "href"),
  };
  const heads = all("h1").filter((head) => head.checkVisibility()).length;
  const isSet = (math) => math.querySelector(".katex math");
  const isCut = (code) => code.checkVisibility() && code.scrollWidth > code.clientWidth;
  const letters = all(".katex").length === 0 || [...document.fonts].some(({ family, status }) => family === "KaTeX_Main" && status === "loaded");
  const start = (element) => element.textContent.trim().slice(0, 100);
  return {
    faults: [
      ...(heads === 1 ? [] : [`${heads} headings of the first level instead of one`]),
      ...Object.keys(said).filter((name) => !said[name]).map((name) => `no ${name}`),
      ...all(".math").filter((math) => !isSet(math)).map((math) => `an equation is not set: ${start(math)}`),
      ...(letters ? [] : ["equations are not in their font"]),
      ...all(".cell_input pre, .bd-article .highlight-python pre").filter(isCut).map((code) => `code is cut off: ${start(code)}`),
      ...(document.querySelector("[type*='jupyter.widget']") ? ["has a widget that needs a kernel"] : []),
      // Sphinx takes a picture's file name where nothing else is said of it.
      ...all("img").filter(({ alt }) => /_images\//.test(alt)).map(({ alt }) => `a picture without a text: ${alt}`),
    ],
    links: all("a[href]").map((link) => link.href),
    anchors: all("[id], a[name]").flatMap((target) => [target.id, target.name].filter(Boolean)),
  };
};
