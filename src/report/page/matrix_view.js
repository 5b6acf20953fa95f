// The head as a matrix that pans and zooms, with the profile of the row and column under the cross.
const matrixView = {
  margin: 56, // of the profiles, below and on the right
  labels: { left: 92, top: 72, pitch: 14 }, // pitch: the smallest cell that has room for one
  frame: null, // { x, y, cells }: the corner and how many columns are in sight
  cross: null, // { row, column }
  levels: [], // the codes, each level the maxima of 2 x 2 of the one before

  build(host, head, state, onCross) {
    this.frame = { x: 0, y: 0, cells: Math.max(head.rows, head.columns) };
    const best = head.codes.reduce((at, code, i, codes) => (code > codes[at] ? i : at), 0);
    const row = state.side === "query" ? state.token : Math.floor(best / head.columns);
    this.cross = { row, column: state.side === "key" ? state.token : best % head.columns };
    this.levels = [{ codes: head.codes, rows: head.rows, columns: head.columns }];
    while (Math.max(this.levels.at(-1).rows, this.levels.at(-1).columns) > 256)
      this.levels.push(this.halved(this.levels.at(-1)));
    const canvas = element("canvas", {
      tabIndex: 0,
      role: "application",
      "aria-label":
        "Attention matrix. Arrow keys move the cross, plus and minus zoom, 0 shows all.",
    });
    const change = () => {
      this.draw(head, state);
      onCross(this.cross);
    };
    this.listen(canvas, head, change);
    const zoom = (label, text, factor) => {
      const button = element("button", { type: "button", "aria-label": label }, text);
      button.addEventListener("click", () => {
        this.zoom(head, factor);
        change();
      });
      return button;
    };
    const buttons = element(
      "div",
      { className: "zoom" },
      zoom("Zoom in", "+", 0.5),
      zoom("Zoom out", "\u2212", 2),
      zoom("Show all", "All", Infinity),
    );
    const says = element("p", { id: "cross-says", className: "small", "aria-live": "polite" });
    host.replaceChildren(element("div", { className: "matrix" }, canvas, buttons, says));
  },

  halved({ codes, rows, columns }) {
    const half = { rows: Math.ceil(rows / 2), columns: Math.ceil(columns / 2) };
    half.codes = new codes.constructor(half.rows * half.columns);
    for (let i = 0; i < rows; ++i) {
      for (let j = 0; j < columns; ++j) {
        const to = (i >> 1) * half.columns + (j >> 1);
        half.codes[to] = Math.max(half.codes[to], codes[i * columns + j]);
      }
    }
    return half;
  },

  zoom(head, factor) {
    const whole = Math.max(head.rows, head.columns);
    const cells = Math.min(whole, Math.max(Math.min(8, whole), this.frame.cells * factor));
    this.frame.cells = cells;
    this.moveTo(head, this.cross.column + 0.5 - cells / 2, this.cross.row + 0.5 - cells / 2);
  },

  moveTo(head, x, y) {
    this.frame.x = Math.min(Math.max(0, x), Math.max(0, head.columns - this.frame.cells));
    this.frame.y = Math.min(Math.max(0, y), Math.max(0, head.rows - this.frame.cells));
  },

  // Where the cells are: labels stand left and on top if they fit, profiles right and below.
  place(canvas, head) {
    const whole = canvas.clientWidth - this.margin;
    const labelled = (whole - this.labels.left) / this.frame.cells >= this.labels.pitch;
    const { left, top } = labelled ? this.labels : { left: 0, top: 0 };
    const cell = (whole - left) / this.frame.cells;
    const width = Math.min(head.columns, this.frame.cells) * cell;
    const height = Math.min(head.rows, this.frame.cells) * cell;
    return { labelled, left, top, cell, width, height };
  },

  cellAt(event, canvas, head) {
    const { left, top, cell } = this.place(canvas, head);
    const box = canvas.getBoundingClientRect();
    const clamp = (x, size) => Math.min(size - 1, Math.max(0, Math.floor(x)));
    const row = clamp(this.frame.y + (event.clientY - box.top - top) / cell, head.rows);
    const column = clamp(this.frame.x + (event.clientX - box.left - left) / cell, head.columns);
    return { row, column };
  },

  listen(canvas, head, change) {
    let grip = null;
    canvas.addEventListener("pointerdown", (event) => {
      grip = { x: event.clientX, y: event.clientY, frame: { ...this.frame } };
      canvas.setPointerCapture(event.pointerId);
      this.cross = this.cellAt(event, canvas, head);
      change();
    });
    canvas.addEventListener("pointerup", () => {
      grip = null;
    });
    canvas.addEventListener("pointermove", (event) => {
      const { cell } = this.place(canvas, head);
      if (grip) {
        const { x, y } = grip.frame;
        this.moveTo(head, x - (event.clientX - grip.x) / cell, y - (event.clientY - grip.y) / cell);
      }
      this.cross = this.cellAt(event, canvas, head);
      change();
    });
    // The wheel scrolls the page, unless the matrix was chosen first.
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && document.activeElement !== canvas) return;
      event.preventDefault();
      this.zoom(head, event.deltaY > 0 ? 1.25 : 0.8);
      change();
    });
    canvas.addEventListener("keydown", (event) => {
      if (!this.key(event.key, head)) return;
      event.preventDefault();
      change();
    });
  },

  key(name, head) {
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const zooms = { "+": 0.5, "=": 0.5, "-": 2, 0: Infinity };
    if (name in zooms) {
      this.zoom(head, zooms[name]);
    } else if (name in moves) {
      const [down, right] = moves[name];
      this.cross.row = Math.min(head.rows - 1, Math.max(0, this.cross.row + down));
      this.cross.column = Math.min(head.columns - 1, Math.max(0, this.cross.column + right));
      this.follow(head);
    }
    return name in zooms || name in moves;
  },

  // Keeps the cross in sight.
  follow(head) {
    const { x, y, cells } = this.frame;
    const { row, column } = this.cross;
    const inside = (place, corner) =>
      Math.min(corner, place) + Math.max(0, place + 1 - (corner + cells));
    this.moveTo(head, inside(column, x), inside(row, y));
  },

  draw(head, state) {
    const canvas = byId("picture").querySelector("canvas");
    const place = this.place(canvas, head);
    const height = Math.ceil(place.top + place.height) + this.margin;
    canvas.style.height = `${height}px`;
    canvas.width = canvas.clientWidth * devicePixelRatio;
    canvas.height = height * devicePixelRatio;
    const pen = canvas.getContext("2d");
    pen.scale(devicePixelRatio, devicePixelRatio);
    pen.translate(place.left, place.top);
    matrixPaint.cells(pen, place, state.theme);
    if (place.labelled) matrixPaint.labels(pen, place, state);
    matrixPaint.cross(pen, place, head);
    const { queries, keys } = labelsOf(state.item);
    const { row, column } = this.cross;
    byId("cross-says").replaceChildren(
      "Query ",
      tokenElement("b", queries[row]),
      ` (${row}) \u2192 key `,
      tokenElement("b", keys[column]),
      ` (${column}): ${percent(head.at(row, column))}`,
    );
  },
};
