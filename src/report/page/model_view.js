// Every head as a small picture: layers x heads, or ordered by a measure.
const modelView = {
  cells: [], // { layer, head, button, canvas, caption, score, value } in the order shown

  build(state, open) {
    const grid = byId("grid");
    this.cells = heads.map(({ layer, head }) => {
      const canvas = element("canvas", { "aria-hidden": "true" });
      const caption = element("span", { className: "caption" });
      const score = element("span", { className: "caption score" });
      const button = element("button", { type: "button", className: "cell" }, canvas, caption, score);
      button.addEventListener("click", () => open(layer, head));
      return { layer, head, button, canvas, caption, score, value: 0 };
    });
    grid.addEventListener("keydown", (event) => this.move(event));
    grid.style.setProperty("--columns", Math.ceil(Math.sqrt(2 * heads.length))); // when ordered
    grid.style.setProperty("--heads", Math.max(...meta.layers.map((layer) => layer.heads)));
  },

  // Pictures and order; on a change of item, theme or measure.
  draw(state) {
    const measure = measures.find(({ key }) => key === state.measure);
    for (const cell of this.cells) {
      paintThumbnail(cell.canvas, headOf(state.item, cell.layer, cell.head), state.theme);
      const stats = statsOf(state.item, cell.layer, cell.head);
      cell.value = measure ? stats[measure.key] : 0;
      cell.caption.textContent = measure ? `${cell.layer + 1}\u00b7${cell.head + 1}` : "";
      cell.score.textContent = measure ? measureText(measure, cell.value, "") : "";
      const note = meta.layers[cell.layer].notes[cell.head];
      const words = [
        cell.caption.textContent,
        headName(cell),
        measure && `${measure.name}: ${measureText(measure, cell.value)}`,
        note && visible(note),
      ];
      cell.button.title = words.filter(Boolean).join("\n");
      cell.button.setAttribute("aria-label", words.filter(Boolean).join(". "));
    }
    const byModel = (a, b) => a.layer - b.layer || a.head - b.head;
    const rank = ({ value }) => (Number.isNaN(value) ? -1 : value); // no measure is negative
    this.cells.sort((a, b) => (measure ? rank(b) - rank(a) : 0) || byModel(a, b));
    this.place(measure);
    this.filter(state);
    this.mark(state);
  },

  place(measure) {
    const grid = byId("grid");
    grid.className = measure ? "ordered" : "by-layer";
    const children = [];
    for (const cell of this.cells) {
      if (!measure && cell.head === 0) {
        const title = visible(meta.layers[cell.layer].name);
        children.push(element("span", { className: "layer-name", title }, `${cell.layer + 1}`));
      }
      cell.button.style.gridColumn = measure ? "" : String(cell.head + 2);
      children.push(cell.button);
    }
    grid.replaceChildren(...children);
  },

  // Heads below the threshold fade; they stay where they are, so that the eye can compare.
  filter(state) {
    const measure = measures.find(({ key }) => key === state.measure);
    byId("filter-label").hidden = !measure;
    if (!measure) {
      for (const cell of this.cells) cell.button.classList.remove("faded");
      return;
    }
    const values = this.cells.map(({ value }) => value).filter((value) => !Number.isNaN(value));
    const low = Math.min(...values);
    const limit = low + ((Math.max(...values) - low) * Number(byId("filter").value)) / 100;
    let kept = 0;
    for (const cell of this.cells) {
      const keeps = cell.value >= limit || Number(byId("filter").value) === 0;
      cell.button.classList.toggle("faded", !keeps);
      kept += keeps ? 1 : 0;
    }
    byId("filter-text").textContent =
      `\u2265 ${measureText(measure, limit)} (${kept} of ${this.cells.length})`;
  },

  // One stop for the Tab key: the open head.
  mark(state) {
    for (const cell of this.cells) {
      const open = cell.layer === state.layer && cell.head === state.head;
      cell.button.classList.toggle("open", open);
      cell.button.setAttribute("aria-pressed", String(open));
      cell.button.tabIndex = open ? 0 : -1;
    }
  },

  move(event) {
    const at = this.cells.findIndex(({ button }) => button === document.activeElement);
    if (at < 0) return;
    const columns = getComputedStyle(byId("grid")).gridTemplateColumns.split(" ").length;
    const stride = byId("grid").className === "ordered" ? columns : columns - 1;
    const steps = {
      ArrowRight: 1,
      ArrowLeft: -1,
      ArrowDown: stride,
      ArrowUp: -stride,
      Home: -at,
      End: this.cells.length - 1 - at,
    };
    const to = at + (steps[event.key] ?? NaN);
    if (Number.isNaN(to)) return;
    event.preventDefault();
    this.cells[Math.min(this.cells.length - 1, Math.max(0, to))].button.focus();
  },
};
