// Light or dark: what the system prefers, until the button or the address says otherwise.
const preferredTheme = () =>
  matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";

function applyTheme(theme) {
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = theme === "dark" ? "Light" : "Dark";
}

function wireTheme(current, show) {
  byId("theme").addEventListener("click", () => show(current() === "dark" ? "light" : "dark"));
  // Paper is white.
  let before = current();
  addEventListener("beforeprint", () => {
    before = current();
    show("light");
  });
  addEventListener("afterprint", () => show(before));
}
