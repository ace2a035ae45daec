// What check_site.py asks of a page: what it says of itself, where its links lead, where links to it may lead.
() => {
  const content = (selector, name) => document.querySelector(selector)?.getAttribute(name)?.trim() ?? "";
  return {
    heads: [...document.querySelectorAll("h1")].filter((head) => head.checkVisibility()).length,
    lang: document.documentElement.lang,
    title: document.title.trim(),
    description: content('meta[name="description"]', "content"),
    favicon: content('link[rel~="icon"]', "href"),
    unset: [...document.querySelectorAll(".math")]
      .filter((math) => !math.querySelector("mjx-container") || math.querySelector('[data-mjx-error], [fill="red"]'))
      .map((math) => math.textContent.trim().slice(0, 100)),
    widgets: document.querySelector(".jupyter-widgets, [type*='widget-view'], .vq-playground") !== null,
    links: [...document.querySelectorAll("a[href]")].map((link) => link.href),
    anchors: [...document.querySelectorAll("[id], a[name]")].flatMap((target) => [target.id, target.name].filter(Boolean)),
  };
};
