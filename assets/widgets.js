// Loaded on pages with widgets only, between require.js and the widgets' bundle (see _config.yml).

// The bundle's modules and fonts lie in the site itself. Each module looks for the fonts beside itself, by its name:
// all are told the folder that holds the bundle.
const dist = "@jupyter-widgets/html-manager/dist";
const modules = ["base", "base7", "controls", "controls7", "html-manager"];
requirejs.config({
  baseUrl: new URL("vendor/", document.currentScript.src).href,
  paths: { [dist]: dist, ...Object.fromEntries(modules.map((name) => [`@jupyter-widgets/${name}`, `${dist}/${name}`])) },
});

// The bundle's sliders have no name, and give their place in the row of values instead of the value.
function nameSliders() {
  for (const slider of document.querySelectorAll(".widget-hslider")) {
    const handle = slider.querySelector(".noUi-handle");
    const [name, value] = [".widget-label", ".widget-readout"].map((part) => slider.querySelector(part)?.textContent);
    if (!handle || !name) continue;
    handle.setAttribute("aria-label", name);
    handle.setAttribute("aria-valuetext", value);
  }
}
document.addEventListener("DOMContentLoaded", () => {
  new MutationObserver(nameSliders).observe(document.body, { childList: true, characterData: true, subtree: true });
});
