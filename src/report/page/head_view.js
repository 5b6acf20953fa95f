// The open head: its name, its measures, the picture, and the strongest links in words.
const headView = {
  head: null,
  kind: "",

  open(state, choose) {
    this.head = headOf(state.item, state.layer, state.head);
    const note = meta.layers[state.layer].notes[state.head];
    byId("head-heading").textContent = visible(headName(state));
    byId("head-note").textContent = note ? visible(note) : "";
    this.chips(statsOf(state.item, state.layer, state.head));
    this.kind = state.view === "lines" && lineView.fits(this.head) ? "lines" : "matrix";
    byId("view-lines").disabled = !lineView.fits(this.head);
    byId("view-lines").setAttribute("aria-pressed", String(this.kind === "lines"));
    byId("view-matrix").setAttribute("aria-pressed", String(this.kind === "matrix"));
    byId("mass").parentElement.hidden = this.kind !== "lines";
    byId("save-svg").disabled = this.kind !== "lines";
    if (this.kind === "lines") lineView.build(byId("picture"), this.head, state, choose);
    else
      matrixView.build(byId("picture"), this.head, state, ({ row }) => choose("query", row, true));
    byId("numbers").open = false;
    this.alike();
    this.draw(state);
  },

  draw(state) {
    byId("mass-text").textContent = percent(state.mass);
    (this.kind === "lines" ? lineView : matrixView).draw(this.head, state);
    this.top(state);
  },

  chips(stats) {
    const keys = 2 ** stats.entropy;
    const none = Number.isNaN(keys) && "\u2013";
    const chip = (name, value, help) =>
      element("div", { title: help }, element("dt", {}, name), element("dd", {}, value));
    const positional = measuresOf([this.head.item])
      .slice(1)
      .map((measure) => chip(measure.name, measureText(measure, stats[measure.key]), measure.help));
    byId("chips").replaceChildren(
      chip(
        "Entropy",
        measureText(measures[0], stats.entropy),
        none ? "no query sees a key, or the weights are NaN" : `as spread out as ${keys.toFixed(1)} keys looked at evenly`,
      ),
      chip("Spread", none || `${keys.toFixed(1)} keys`, "2 to the power of the entropy"),
      ...positional,
    );
  },

  // Of the chosen token, or of the whole head: { from, to, weight }, strongest first.
  strongestLinks({ side, token }, count) {
    const { rows, columns } = this.head;
    const inRows = side === "query" ? [token] : Array.from({ length: rows }, (_, i) => i);
    const inColumns = side === "key" ? [token] : Array.from({ length: columns }, (_, j) => j);
    let links = [];
    for (const from of inRows) {
      for (const to of inColumns) links.push({ from, to, weight: this.head.at(from, to) });
      if (links.length > 4096) links = this.best(links, count);
    }
    return this.best(links, count);
  },

  best: (links, count) => links.sort((a, b) => b.weight - a.weight).slice(0, count),

  top(state) {
    const { queries, keys } = labelsOf(state.item);
    const { side, token } = state.shown;
    const heading = { query: ["looks at"], key: ["is looked at by"] }[side];
    byId("top-heading").replaceChildren(
      ...(heading
        ? [
            tokenElement("b", (side === "query" ? queries : keys)[token], { className: "token" }),
            ` ${heading}`,
          ]
        : ["Strongest links"]),
    );
    const rows = this.strongestLinks(state.shown, 10)
      .filter(({ weight }) => weight >= 0.001)
      .map(({ from, to, weight }) => {
        const names = [];
        if (side !== "query")
          names.push(tokenElement("span", queries[from], { className: "token" }));
        if (side === null) names.push(" \u2192 ");
        if (side !== "key") names.push(tokenElement("span", keys[to], { className: "token" }));
        const row = element(
          "li",
          {},
          element("span", { className: "names" }, ...names),
          element("span", { className: "value" }, percent(weight)),
        );
        row.style.setProperty("--weight", weight.toFixed(4));
        return row;
      });
    byId("top-list").replaceChildren(
      ...(rows.length ? rows : [element("li", {}, "nothing: the row is empty")]),
    );
  },

  // The heads that do most nearly the same.
  alike() {
    const others = heads
      .filter(({ layer, head }) => layer !== this.head.layer || head !== this.head.head)
      .map((one) => ({ ...one, alike: overlap(this.head, headOf(this.head.item, one.layer, one.head)) }))
      .sort((a, b) => b.alike - a.alike);
    const rows = others.slice(0, 3).map((one) => {
      const button = element("button", { type: "button" }, visible(headName(one)));
      button.addEventListener("click", () => openHead(one.layer, one.head));
      return element("li", {}, button, element("span", { className: "value" }, percent(one.alike)));
    });
    byId("alike").hidden = rows.length === 0;
    byId("alike-list").replaceChildren(...rows);
  },

  // The fall-back for eyes and ears that the picture does not reach.
  table(state) {
    const { queries, keys } = labelsOf(state.item);
    const limit = 64;
    const shown = keys.slice(0, limit);
    const headers = shown.map((key) => tokenElement("th", key, { scope: "col" }));
    const lines = queries
      .slice(0, limit)
      .map((query, i) =>
        element(
          "tr",
          {},
          tokenElement("th", query, { scope: "row" }),
          ...shown.map((_, j) => element("td", {}, percent(this.head.at(i, j)))),
        ),
      );
    const cut =
      Math.max(queries.length, keys.length) > limit
        ? ` The first ${limit} of each; the CSV has all.`
        : "";
    byId("table").replaceChildren(
      element(
        "table",
        {},
        element("caption", {}, `Rows look, columns are looked at.${cut}`),
        element("thead", {}, element("tr", {}, element("td"), ...headers)),
        element("tbody", {}, ...lines),
      ),
    );
  },
};
