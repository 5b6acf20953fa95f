// What the matrix view draws, in the frame and with the cross that it holds.
const matrixPaint = {
  labels(pen, place, state) {
    const { queries, keys } = labelsOf(state.item);
    const short = (text) => (text.length > 11 ? `${text.slice(0, 10)}\u2026` : text);
    const style = getComputedStyle(document.documentElement);
    pen.font = "12px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace";
    const paint = (label, chosen) => {
      pen.fillStyle = style.getPropertyValue(chosen ? "--accent" : "--ink");
      pen.fillText(short(visible(label)), 0, 4);
    };
    const shown = (corner, size) => Array.from({ length: size }, (_, i) => Math.ceil(corner) + i);
    for (const i of shown(matrixView.frame.y, Math.floor(place.height / place.cell))) {
      pen.save();
      pen.textAlign = "right";
      pen.translate(-6, (i + 0.5 - matrixView.frame.y) * place.cell);
      paint(queries[i], i === matrixView.cross.row);
      pen.restore();
    }
    for (const j of shown(matrixView.frame.x, Math.floor(place.width / place.cell))) {
      pen.save();
      pen.translate((j + 0.5 - matrixView.frame.x) * place.cell, -6);
      pen.rotate(-Math.PI / 3);
      paint(keys[j], j === matrixView.cross.column);
      pen.restore();
    }
  },

  // The coarsest level that still has a cell for each pixel.
  cells(pen, area, theme) {
    const pixel = area.cell;
    let index = 0;
    while (index + 1 < matrixView.levels.length && pixel * 2 ** (index + 1) <= 1) ++index;
    const level = matrixView.levels[index];
    const step = 2 ** index;
    const x0 = Math.floor(matrixView.frame.x / step);
    const y0 = Math.floor(matrixView.frame.y / step);
    const width =
      Math.min(level.columns, Math.ceil((matrixView.frame.x + matrixView.frame.cells) / step)) - x0;
    const height =
      Math.min(level.rows, Math.ceil((matrixView.frame.y + matrixView.frame.cells) / step)) - y0;
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
      (x0 * step - matrixView.frame.x) * pixel,
      (y0 * step - matrixView.frame.y) * pixel,
      width * scale,
      height * scale,
    );
    pen.restore();
  },

  cross(pen, area, head) {
    const style = getComputedStyle(document.documentElement);
    const pixel = area.cell;
    const x = (matrixView.cross.column - matrixView.frame.x) * pixel;
    const y = (matrixView.cross.row - matrixView.frame.y) * pixel;
    pen.strokeStyle = style.getPropertyValue("--line-strong");
    pen.strokeRect(0.5, 0.5, area.width - 1, area.height - 1);
    pen.strokeStyle = style.getPropertyValue("--accent");
    pen.strokeRect(x, 0.5, pixel, area.height - 1);
    pen.strokeRect(0.5, y, area.width - 1, pixel);
    pen.fillStyle = style.getPropertyValue("--accent");
    const deep = matrixView.margin - 10;
    const bar = Math.max(1, pixel - 1);
    for (let j = Math.ceil(matrixView.frame.x); j < head.columns; ++j) {
      const left = (j - matrixView.frame.x) * pixel;
      if (left + bar > area.width) break;
      pen.fillRect(left, area.height + 4, bar, deep * head.at(matrixView.cross.row, j));
    }
    for (let i = Math.ceil(matrixView.frame.y); i < head.rows; ++i) {
      const top = (i - matrixView.frame.y) * pixel;
      if (top + bar > area.height) break;
      pen.fillRect(area.width + 4, top, deep * head.at(i, matrixView.cross.column), bar);
    }
  },
};
