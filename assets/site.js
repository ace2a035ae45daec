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

// A figure that is wider than the screen scrolls, by keyboard too.
window.addEventListener("load", () => {
  document.querySelectorAll(".cell_output:has(> img)").forEach((output) => {
    if (output.scrollWidth > output.clientWidth) output.tabIndex = 0;
  });
});
