// The button that switches between light and dark; the initial theme is that of the reader's system.
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
