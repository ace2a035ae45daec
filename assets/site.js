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

// What is copied has its maths as TeX, not as the letters of its markup.
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

// A figure or an equation that is wider than the screen scrolls, by keyboard too.
window.addEventListener("load", () => {
  document.querySelectorAll(".cell_output:has(> img), div.math").forEach((output) => {
    if (output.scrollWidth > output.clientWidth) output.tabIndex = 0;
  });
});
