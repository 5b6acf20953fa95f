// State, the address, and who tells whom.
const state = {
  item: 0,
  layer: 0,
  head: 0,
  view: "lines",
  measure: "model",
  mass: 0.9,
  theme: "light",
  chosenTheme: null,
  side: null,
  token: -1, // the token chosen by click or key
  shown: { side: null, token: -1 }, // the same, or the one under the pointer
};

const clampIndex = (text, size) => Math.min(size - 1, Math.max(0, Math.floor(Number(text)) || 0));

// Without being asked for another: a head that does one thing, say look at the previous token, or
// at what followed the same token before.
function clearestHead(item) {
  const clear = ({ layer, head }) => {
    const stats = statsOf(item, layer, head);
    return Math.max(stats.previous || 0, stats.next || 0, stats.induction || 0); // NaN is not clear
  };
  return heads.reduce((best, one) => (clear(one) > clear(best) ? one : best));
}

// Everything that a link should bring back stands in the address: #item=2&layer=3&head=5&...
function readAddress() {
  const asked = new URLSearchParams(location.hash.slice(1));
  state.item = clampIndex(asked.get("item"), meta.items.length);
  const { layer, head } = clearestHead(state.item);
  state.layer = clampIndex((asked.get("layer") || layer + 1) - 1, meta.layers.length);
  state.head = clampIndex((asked.get("head") || head + 1) - 1, meta.layers[state.layer].heads);
  state.view = asked.get("view") === "matrix" ? "matrix" : "lines";
  state.measure = measures.some(({ key }) => key === asked.get("order"))
    ? asked.get("order")
    : "model";
  const { rows, columns } = meta.items[state.item];
  state.side = ["query", "key"].find((side) => asked.has(side)) || null;
  state.token = state.side
    ? clampIndex(asked.get(state.side), state.side === "query" ? rows : columns)
    : -1;
  state.shown = { side: state.side, token: state.token };
  readTheme(state, asked);
}

function writeAddress() {
  const now = new URLSearchParams({
    item: state.item,
    layer: state.layer + 1,
    head: state.head + 1,
  });
  if (state.view !== "lines") now.set("view", state.view);
  if (state.measure !== "model") now.set("order", state.measure);
  if (state.side) now.set(state.side, state.token);
  if (state.chosenTheme) now.set("theme", state.chosenTheme);
  history.replaceState(null, "", `#${now}`);
}

function choose(side, token, passing) {
  if (!passing) {
    const again = state.side === side && state.token === token;
    state.side = again ? null : side;
    state.token = again ? -1 : token;
    writeAddress();
  }
  state.shown =
    passing && side !== null ? { side, token } : { side: state.side, token: state.token };
  if (passing && headView.kind === "matrix") headView.top(state);
  else headView.draw(state);
}

function forgetToken() {
  state.side = null;
  state.token = -1;
  state.shown = { side: null, token: -1 };
}

function openHead(layer, head) {
  const scrolls = byId("head").getBoundingClientRect().top > innerHeight * 0.8;
  Object.assign(state, { layer, head });
  modelView.mark(state);
  headView.open(state, choose);
  writeAddress();
  if (scrolls) byId("head").scrollIntoView({ block: "start" });
}

function showItem(item) {
  state.item = Math.min(meta.items.length - 1, Math.max(0, item));
  forgetToken();
  showAll();
  writeAddress();
}

function showInTheme(theme) {
  state.theme = theme;
  showAll();
}

function showAll() {
  applyTheme(state.theme);
  byId("ramp").style.background = rampGradient(state.theme);
  byId("item").value = String(state.item);
  byId("item-previous").disabled = state.item === 0;
  byId("item-next").disabled = state.item === meta.items.length - 1;
  byId("measure").value = state.measure;
  modelView.draw(state);
  headView.open(state, choose);
}

function fillPage() {
  byId("title").textContent = visible(meta.title);
  byId("subtitle").textContent = meta.subtitle ? visible(meta.subtitle) : "";
  byId("guide").append(...meta.guide.map((line) => element("p", {}, visible(line))));
  byId("items").hidden = meta.items.length < 2;
  byId("item").append(
    ...meta.items.map((item, i) =>
      element(
        "option",
        { value: String(i) },
        `${i + 1}. ${item.title ? visible(item.title) : `item ${i}`}`,
      ),
    ),
  );
  byId("measure").append(
    element("option", { value: "model" }, "layer and head"),
    ...measuresOf([...meta.items.keys()]).map(({ key, name }) =>
      element("option", { value: key }, name.toLowerCase()),
    ),
  );
  const stored =
    `Weights are stored in ${meta.bits} bits each; the largest error that makes here is ` +
    `${(100 * meta.worst).toPrecision(2)} percentage points. Entropy and the other ` +
    "measures were computed before that, from the exact weights.";
  const missing =
    meta.nan > 0
      ? [`${meta.nan} weights are NaN and shown as 0.`]
      : [];
  byId("facts").append(
    ...[...meta.facts.map(visible), stored, ...missing].map((line) => element("p", {}, line)),
  );
}

function wire() {
  byId("item").addEventListener("change", (event) => showItem(Number(event.target.value)));
  byId("item-previous").addEventListener("click", () => showItem(state.item - 1));
  byId("item-next").addEventListener("click", () => showItem(state.item + 1));
  wireTheme(state, showInTheme, writeAddress);
  byId("measure").addEventListener("change", (event) => {
    state.measure = event.target.value;
    byId("filter").value = 0;
    modelView.draw(state);
    writeAddress();
  });
  byId("filter").addEventListener("input", () => modelView.filter(state));
  byId("mass").addEventListener("input", (event) => {
    state.mass = Number(event.target.value) / 100;
    headView.draw(state);
  });
  for (const view of ["lines", "matrix"]) {
    byId(`view-${view}`).addEventListener("click", () => {
      state.view = view;
      headView.open(state, choose);
      writeAddress();
    });
  }
  byId("numbers").addEventListener("toggle", () => {
    if (byId("numbers").open) headView.table(state);
  });
  addEventListener("resize", () => headView.draw(state));
  addEventListener("hashchange", () => {
    readAddress();
    showAll();
  });
  wireExports(state);
}

state.theme = preferredTheme();
readAddress();
fillPage();
modelView.build(state, openHead);
wire();
showAll();
document.documentElement.dataset.ready = "yes";
