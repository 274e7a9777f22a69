// The button that turns the page from light to dark and back; it begins with what the reader's system says.
"use strict";

(() => {
  const theme = document.getElementById("theme");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const chosen = document.documentElement.dataset;
    const now = chosen.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    chosen.theme = now === "dark" ? "light" : "dark";
  });
})();
