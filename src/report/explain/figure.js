// One matrix on the page: its numbers where they are few, else a picture with a legend and, folded
// away, a table.
const fewNumbers = 40;
const fewRows = 12;
const fewColumns = 8;
const tableNumbers = 2048; // at a time
const openTables = new Set();

function numberElement(name, x, properties = {}) {
  const made = element(name, { title: String(x), ...properties }, numberText(x));
  if (x === -Infinity) made.classList.add("sees-not");
  return made;
}

// A single row wraps, so that it fits any width.
function cellList({ numbers, kind, largest, columnLabels, mine }) {
  const items = numbered(numbers.columns).map((_, j) => {
    const x = numbers.at(0, j);
    const cell = element("li", { className: mine?.(0, j) ? "mine" : "" });
    cell.style.setProperty("--tint", tintOf(kind, x, largest, state.theme));
    cell.append(
      element("span", { className: "index" }, visible(columnLabels[j])),
      numberElement("span", x, { className: "number" }),
    );
    return cell;
  });
  return element("ol", { className: "cells" }, ...items);
}

function tableOf(figure, from, to) {
  const { name, numbers, kind, largest, rowLabels, columnLabels, mine } = figure;
  const head = element("tr", {}, element("th", { scope: "col" }, figure.corner));
  head.append(...columnLabels.map((label) => element("th", { scope: "col" }, visible(label))));
  const body = element("tbody");
  for (let i = from; i < to; ++i) {
    const row = element("tr", {}, element("th", { scope: "row" }, visible(rowLabels[i])));
    for (let j = 0; j < numbers.columns; ++j) {
      const x = numbers.at(i, j);
      const cell = numberElement("td", x, { className: mine?.(i, j) ? "mine" : "" });
      cell.style.setProperty("--tint", tintOf(kind, x, largest, state.theme));
      row.append(cell);
    }
    body.append(row);
  }
  const caption = element("caption", { className: "unseen" }, name);
  return element("table", {}, caption, element("thead", {}, head), body);
}

function scroller(className, label, ...children) {
  const properties = { className, tabIndex: 0, role: "region", "aria-label": label };
  return element("div", properties, ...children);
}

// A row of one long vector is turned: a column of numbers is easier to scroll.
function upright(figure) {
  if (figure.numbers.rows > 1) return figure;
  const turned = piece(figure.numbers.columns, 1, (i) => figure.numbers.at(0, i));
  const mine = figure.mine && ((i, j) => figure.mine(j, i));
  const labels = { rowLabels: figure.columnLabels, columnLabels: ["number"], corner: "index" };
  return { ...figure, ...labels, numbers: turned, mine };
}

function foldedTable(given) {
  const figure = upright(given);
  const step = Math.max(1, Math.floor(tableNumbers / figure.numbers.columns));
  const place = scroller("scroll", figure.name);
  const fold = element("details", {}, element("summary", {}, "The numbers as a table"));
  let from = 0;
  const says = element("span");
  const show = () => {
    const to = Math.min(from + step, figure.numbers.rows);
    place.replaceChildren(tableOf(figure, from, to));
    says.textContent = `rows ${from + 1} to ${to} of ${figure.numbers.rows}`;
  };
  const turn = (by) => () => {
    from = Math.min(Math.max(0, from + by), Math.floor((figure.numbers.rows - 1) / step) * step);
    show();
  };
  if (step < figure.numbers.rows) {
    const back = element("button", { type: "button", onclick: turn(-step) }, "Previous rows");
    const on = element("button", { type: "button", onclick: turn(step) }, "Next rows");
    fold.append(element("div", { className: "pager" }, back, on, says));
  }
  fold.append(place);
  fold.addEventListener("toggle", () => {
    if (fold.open) openTables.add(figure.key);
    else openTables.delete(figure.key);
    if (fold.open && !place.firstChild) show();
  });
  fold.open = openTables.has(figure.key);
  return fold;
}

function legend({ numbers, kind, largest }) {
  const bar = element("i");
  bar.style.background = gradientOf(kind, state.theme);
  const most = numberText(largest);
  const ends = kind === "weights" ? ["0", `${most}, the largest`] : [numberText(-largest), most];
  const made = element("p", { className: "legend", "aria-hidden": "true" }, ends[0], bar, ends[1]);
  const signs = [
    [(x) => x === -Infinity, hiddenColours, "hidden"],
    [Number.isNaN, nanColours, "NaN"],
  ];
  for (const [is, colours, words] of signs) {
    if (!some(numbers, is)) continue;
    const swatch = element("i", { className: "swatch" });
    swatch.style.background = colours[state.theme];
    made.append(swatch, words);
  }
  const cut = numbers.rows > mostPixels.rows || numbers.columns > mostPixels.columns;
  if (cut) made.append("\u00b7 each point is the largest of its patch");
  return made;
}

function some(numbers, is) {
  for (let i = 0; i < numbers.rows; ++i) {
    for (let j = 0; j < numbers.columns; ++j) {
      if (is(numbers.at(i, j))) return true;
    }
  }
  return false;
}

const clampTo = (least, x, most) => Math.min(most, Math.max(least, x));

function picture(figure) {
  const { name, numbers, kind, largest, marks, choose } = figure;
  const cell = clampTo(2, Math.min(640 / numbers.columns, 260 / numbers.rows), 24);
  const words = `${name}: a picture of ${numbers.rows} times ${numbers.columns} numbers; the same`;
  const canvas = element("canvas", { role: "img", "aria-label": `${words} as a table below` });
  paintPiece(canvas, numbers, kind, largest, state.theme);
  const frame = element("div", { className: "picture" }, canvas);
  frame.style.width = `${clampTo(140, numbers.columns * cell, 900)}px`;
  frame.style.height = `${clampTo(26, numbers.rows * cell, 320)}px`;
  for (const { row = 0, rows = numbers.rows, column = 0, columns = numbers.columns } of marks) {
    const mark = element("div", { className: "mark" });
    mark.style.top = `${(100 * row) / numbers.rows}%`;
    mark.style.height = `${(100 * rows) / numbers.rows}%`;
    mark.style.left = `${(100 * column) / numbers.columns}%`;
    mark.style.width = `${(100 * columns) / numbers.columns}%`;
    frame.append(mark);
  }
  if (choose) {
    frame.classList.add("choosable");
    canvas.addEventListener("click", (event) => {
      const place = canvas.getBoundingClientRect();
      choose(Math.floor((numbers.rows * (event.clientY - place.top)) / place.height));
    });
  }
  return frame;
}

// figure: name; numbers, a piece; kind "signed" or "weights"; words; rowLabels, columnLabels;
// corner, over the row labels; marks of a picture, and the same for numbers: mine(row, column).
function figureOf(given) {
  const { numbers } = given;
  const figure = {
    kind: "signed",
    corner: "index",
    marks: [],
    largest: largestOf(numbers),
    key: given.name,
    rowLabels: numbered(numbers.rows),
    columnLabels: numbered(numbers.columns),
    ...given,
  };
  const shape = numbers.rows === 1 ? [numbers.columns] : [numbers.rows, numbers.columns];
  const title = element("h3", {}, figure.name);
  title.append(element("span", { className: "shape" }, `[${shape.join(", ")}]`));
  const made = element("div", { className: "matrix" }, title);
  if (figure.words) made.append(element("p", { className: "words" }, figure.words));
  if (numbers.rows * numbers.columns === 0) made.append(element("p", {}, "empty"));
  else if (numbers.rows === 1 && numbers.columns <= fewNumbers) made.append(cellList(figure));
  else if (numbers.rows <= fewRows && numbers.columns <= fewColumns) {
    made.append(scroller("few", figure.name, tableOf(figure, 0, numbers.rows)));
  } else made.append(picture(figure), legend(figure), foldedTable(figure));
  return made;
}
