// The head as a matrix that pans and zooms, with the profile of the row and column under the cross.
const matrixView = {
  margin: 56, // of the profiles, below and on the right
  frame: null, // { x, y, cells }: the corner and how many columns are in sight
  cross: null, // { row, column }
  levels: [], // the codes, each level the maxima of 2 x 2 of the one before

  build(host, head, state, onCross) {
    this.frame = { x: 0, y: 0, cells: Math.max(head.rows, head.columns) };
    this.cross = { row: 0, column: 0 };
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

  listen(canvas, head, change) {
    let grip = null;
    const cellAt = (event) => {
      const size = canvas.clientWidth - this.margin;
      const box = canvas.getBoundingClientRect();
      const place = (offset, corner, end) =>
        Math.min(end - 1, Math.max(0, Math.floor(corner + (offset * this.frame.cells) / size)));
      return {
        row: place(event.clientY - box.top, this.frame.y, head.rows),
        column: place(event.clientX - box.left, this.frame.x, head.columns),
      };
    };
    canvas.addEventListener("pointerdown", (event) => {
      grip = { at: [event.clientX, event.clientY], frame: { ...this.frame } };
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointerup", () => {
      grip = null;
    });
    canvas.addEventListener("pointermove", (event) => {
      if (grip) {
        const cell = this.frame.cells / (canvas.clientWidth - this.margin);
        this.moveTo(
          head,
          grip.frame.x - (event.clientX - grip.at[0]) * cell,
          grip.frame.y - (event.clientY - grip.at[1]) * cell,
        );
      }
      this.cross = cellAt(event);
      change();
    });
    canvas.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        this.zoom(head, event.deltaY > 0 ? 1.25 : 0.8);
        change();
      },
      { passive: false },
    );
    canvas.addEventListener("keydown", (event) => {
      if (this.key(event.key, head)) {
        event.preventDefault();
        change();
      }
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
    const size = canvas.clientWidth - this.margin;
    const across = Math.min(head.columns, this.frame.cells) / this.frame.cells;
    const down = Math.min(head.rows, this.frame.cells) / this.frame.cells;
    const height = Math.ceil(size * down) + this.margin;
    canvas.style.height = `${height}px`;
    canvas.width = canvas.clientWidth * devicePixelRatio;
    canvas.height = height * devicePixelRatio;
    const pen = canvas.getContext("2d");
    pen.scale(devicePixelRatio, devicePixelRatio);
    const area = { width: size * across, height: size * down };
    this.paintCells(pen, area, state.theme);
    this.paintCross(pen, area, head, state);
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

  // The coarsest level that still has a cell for each pixel.
  paintCells(pen, area, theme) {
    const pixel = area.width / Math.min(this.levels[0].columns, this.frame.cells);
    let index = 0;
    while (index + 1 < this.levels.length && pixel * 2 ** (index + 1) <= 1) ++index;
    const level = this.levels[index];
    const step = 2 ** index;
    const x0 = Math.floor(this.frame.x / step);
    const y0 = Math.floor(this.frame.y / step);
    const width = Math.min(level.columns, Math.ceil((this.frame.x + this.frame.cells) / step)) - x0;
    const height = Math.min(level.rows, Math.ceil((this.frame.y + this.frame.cells) / step)) - y0;
    const cut = new level.codes.constructor(width * height);
    for (let i = 0; i < height; ++i) {
      const from = (y0 + i) * level.columns + x0;
      cut.set(level.codes.subarray(from, from + width), i * width);
    }
    const tile = element("canvas", { width, height });
    tile.getContext("2d").putImageData(imageOfCodes(cut, height, width, theme), 0, 0);
    const scale = pixel * step;
    pen.save();
    pen.beginPath();
    pen.rect(0, 0, area.width, area.height);
    pen.clip();
    pen.imageSmoothingEnabled = scale < 1;
    pen.drawImage(
      tile,
      (x0 * step - this.frame.x) * pixel,
      (y0 * step - this.frame.y) * pixel,
      width * scale,
      height * scale,
    );
    pen.restore();
  },

  paintCross(pen, area, head, state) {
    const style = getComputedStyle(document.documentElement);
    const pixel = area.width / Math.min(head.columns, this.frame.cells);
    const x = (this.cross.column - this.frame.x) * pixel;
    const y = (this.cross.row - this.frame.y) * pixel;
    pen.strokeStyle = style.getPropertyValue("--line-strong");
    pen.strokeRect(0.5, 0.5, area.width - 1, area.height - 1);
    pen.strokeStyle = style.getPropertyValue("--accent");
    pen.strokeRect(x, 0.5, pixel, area.height - 1);
    pen.strokeRect(0.5, y, area.width - 1, pixel);
    const deep = this.margin - 10;
    const bar = Math.max(1, pixel - 1);
    pen.fillStyle = style.getPropertyValue("--accent");
    for (let j = Math.floor(this.frame.x); j < head.columns; ++j) {
      const left = (j - this.frame.x) * pixel;
      if (left >= 0 && left < area.width)
        pen.fillRect(left, area.height + 4, bar, deep * Math.sqrt(head.at(this.cross.row, j)));
    }
    for (let i = Math.floor(this.frame.y); i < head.rows; ++i) {
      const top = (i - this.frame.y) * pixel;
      if (top >= 0 && top < area.height)
        pen.fillRect(area.width + 4, top, deep * Math.sqrt(head.at(i, this.cross.column)), bar);
    }
  },
};
