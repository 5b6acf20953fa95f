// Light or dark: what the system prefers, until the button or the address says otherwise.
const preferredTheme = () =>
  matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";

function applyTheme(theme) {
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = theme === "dark" ? "Light" : "Dark";
}

// A chosen theme stands in the address from then on; what the system prefers does not.
function readTheme(state, asked) {
  const theme = asked.get("theme");
  if (["light", "dark"].includes(theme)) state.theme = state.chosenTheme = theme;
}

function wireTheme(state, show, writeAddress) {
  byId("theme").addEventListener("click", () => {
    state.chosenTheme = state.theme === "dark" ? "light" : "dark";
    show(state.chosenTheme);
    writeAddress();
  });
  // Paper is white.
  let before = state.theme;
  addEventListener("beforeprint", () => {
    before = state.theme;
    show("light");
  });
  addEventListener("afterprint", () => show(before));
}
