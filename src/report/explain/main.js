// State, the address, and who tells whom. Query and head are indices into what the page holds.
const state = { query: 0, head: 0, step: 0, theme: preferredTheme(), chosenTheme: null };

const clampIndex = (text, size) => Math.min(size - 1, Math.max(0, Math.floor(Number(text)) || 0));

// #query=5&head=2&step=6: the query as numbered in the input, heads and steps from 1.
function readAddress() {
  const asked = new URLSearchParams(location.hash.slice(1));
  state.query = clampIndex(asked.get("query") - meta.queries.first, meta.queries.count);
  state.head = clampIndex((asked.get("head") || 1) - 1, meta.heads.count);
  state.step = clampIndex(asked.get("step"), meta.steps.length + 1);
  readTheme(state, asked);
}

function address(step) {
  const now = new URLSearchParams({
    query: meta.queries.first + state.query,
    head: state.head + 1,
  });
  if (step) now.set("step", step);
  if (state.chosenTheme) now.set("theme", state.chosenTheme);
  return `#${now}`;
}

function writeAddress() {
  if (meta.steps.length) history.replaceState(null, "", address(state.step));
}

function goTo(step) {
  if (!step) return;
  byId(`step-${step}`).scrollIntoView({ block: "start" });
  byId(`heading-${step}`).focus({ preventScroll: true });
}

function chooseQuery(query) {
  state.query = clampIndex(query, meta.queries.count);
  chosen();
}

function chooseHead(head) {
  state.head = clampIndex(head, meta.heads.count);
  chosen();
}

function chosen() {
  writeAddress();
  show();
  byId("status").textContent = `Query ${meta.queries.first + state.query}, head ${state.head + 1}`;
}

function fillStep(section, { formula, shapes, shows }) {
  const says = (name) => section.querySelector(name);
  if (formula) says(".plain-formula").textContent = formula;
  says(".shapes").textContent = shapes;
  says(".shows").replaceChildren(...shows);
}

function show() {
  applyTheme(state.theme);
  for (const [name, count] of [["query", meta.queries.count], ["head", meta.heads.count]]) {
    byId(name).value = String(state[name]);
    byId(`${name}-previous`).disabled = state[name] === 0;
    byId(`${name}-next`).disabled = state[name] === count - 1;
  }
  stepFunctions.forEach((step, n) => fillStep(byId(`step-${n + 1}`), step(state)));
  fillStep(byId("fast"), fastPath(state));
  for (const link of byId("contents").querySelectorAll("a")) {
    link.href = address(link.dataset.step);
  }
}

function codeFigure(caption, code) {
  return element(
    "figure",
    {},
    element("figcaption", {}, caption),
    element("pre", {}, element("code", {}, code)),
  );
}

function codeOf({ python, cpp }) {
  const files = [...new Set(cpp.map(({ file }) => file))];
  const made = files.map((file) =>
    codeFigure(file, cpp.filter((line) => line.file === file).map(({ code }) => code).join("\n")),
  );
  return python ? [...made, codeFigure("in PyTorch, from scratch", python)] : made;
}

function partText() {
  const { queries, keys, heads } = meta;
  const range = ({ first, count }) => `${first} to ${first + count - 1}`;
  const parts = [];
  if (queries.count < queries.of) parts.push(`queries ${range(queries)} of ${queries.of}`);
  if (keys.count < keys.of) parts.push(`keys ${range(keys)} of ${keys.of}`);
  if (heads.count < heads.of) parts.push(`heads 1 to ${heads.count} of ${heads.of}`);
  const sums = keys.count < keys.of ? " Softmax and weighted sums run over all keys." : "";
  const all = has("w_q") ? "" : " The parameters are too many for this page.";
  return (parts.length ? `This page holds ${parts.join(", ")}.` : "") + sums + all;
}

function fillSelect(id, labels) {
  const options = labels.map((label, i) => element("option", { value: String(i) }, label));
  byId(id).append(...options);
}

function fillTitle() {
  byId("title").textContent = visible(meta.title);
  byId("subtitle").textContent = visible(meta.subtitle);
  byId("facts").append(...meta.facts.map((line) => element("p", {}, visible(line))));
}

function fillPage() {
  fillSelect("query", queryLabels());
  fillSelect("head", numbered(meta.heads.count, 1));
  byId("part").textContent = partText();
  for (const [name, held] of [["in-bias", meta.inBias], ["out-bias", meta.outBias]]) {
    for (const term of document.querySelectorAll(`.${name}`)) if (!held) term.remove();
  }
  meta.steps.forEach((step, n) => {
    byId(`step-${n + 1}`).querySelector(".code").append(...codeOf(step));
    const title = byId(`heading-${n + 1}`).textContent;
    const link = element("a", {}, title);
    link.dataset.step = String(n + 1);
    link.addEventListener("click", () => goTo(n + 1)); // it may be the address already
    byId("contents").append(element("li", {}, link));
  });
}

function wire() {
  for (const [name, choose] of [["query", chooseQuery], ["head", chooseHead]]) {
    byId(name).addEventListener("change", (event) => choose(event.target.value));
    byId(`${name}-previous`).addEventListener("click", () => choose(state[name] - 1));
    byId(`${name}-next`).addEventListener("click", () => choose(state[name] + 1));
  }
  addEventListener("hashchange", () => {
    readAddress();
    show();
    goTo(state.step);
  });
}

function showInTheme(theme) {
  state.theme = theme;
  if (meta.steps.length) show();
  else applyTheme(theme);
}

fillTitle();
if (meta.steps.length) {
  readAddress();
  fillPage();
  wire();
  showInTheme(state.theme);
  goTo(state.step);
} else {
  for (const id of ["choose", "steps"]) byId(id).hidden = true;
  byId("nothing").hidden = false;
  showInTheme(state.theme);
}
wireTheme(state, showInTheme, writeAddress);
document.documentElement.dataset.ready = "yes";
