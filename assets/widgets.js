// Loaded on pages with widgets only, between require.js and the widgets' bundle (see tools/vendor.py).

// The bundle's modules and fonts lie in the site itself.
requirejs.config({ baseUrl: new URL("vendor/", document.currentScript.src).href });

// The bundle sets the mathematics of its labels through MathJax 2's queue, which MathJax 3 lacks.
document.addEventListener("DOMContentLoaded", () => {
  if (!window.MathJax || MathJax.Hub) return;
  MathJax.Hub = {
    Queue: ([, , element]) => MathJax.startup.promise.then(() => MathJax.typesetPromise([element])),
  };
});
