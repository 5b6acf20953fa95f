// The open head as a file: a vector picture fit for a paper, the pixels, or the numbers.
const xmlText = (text) => text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

// A spreadsheet runs a cell that starts like a formula; a leading quote keeps it text.
function csvCell(label) {
  const text = visible(label);
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return `"${safe.replace(/"/g, '""')}"`;
}

function save(name, content, type) {
  const blob = content instanceof Blob ? content : new Blob([content], { type });
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// Always on white, whatever the page's theme: it goes on paper.
function svgOfHead(head, state) {
  const { queries, keys } = labelsOf(state.item);
  const row = 20;
  const column = 150;
  const width = 260;
  const height = Math.max(head.rows, head.columns) * row;
  const label = (text, i, x, anchor) => {
    const place = `x="${x}" y="${(i + 0.5) * row + 4}" text-anchor="${anchor}"`;
    return `<text ${place}>${xmlText(visible(text))}</text>`;
  };
  const line = (link) => {
    const { colour, width: stroke, alpha } = lineView.pen(link, state.shown.side !== null, "light");
    const [y0, y1] = [(link.from + 0.5) * row, (link.to + 0.5) * row];
    const [bend0, bend1, end] = [0.4, 0.6, 1].map((share) => column + width * share);
    const path = `M${column} ${y0}C${bend0} ${y0} ${bend1} ${y1} ${end} ${y1}`;
    const looks = `stroke-width="${stroke.toFixed(2)}" opacity="${alpha.toFixed(3)}"`;
    return `<path d="${path}" stroke="${colour}" ${looks}/>`;
  };
  const whole = 2 * column + width;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${whole}" height="${height}"`,
    `viewBox="0 0 ${whole} ${height}">`,
    `<title>${xmlText(visible(headName(head)))}</title>`,
    `<g fill="none" stroke-linecap="round">`,
    ...lineView.links(head, state).map(line),
    "</g>",
    `<g font-family="sans-serif" font-size="12" fill="#1d1a22">`,
    ...queries.map((text, i) => label(text, i, column - 8, "end")),
    ...keys.map((text, i) => label(text, i, column + width + 8, "start")),
    "</g></svg>",
  ].join("\n");
}

function csvOfHead(head, state) {
  const { queries, keys } = labelsOf(state.item);
  const lines = [["", ...keys.map(csvCell)].join(",")];
  queries.forEach((query, i) =>
    lines.push([csvCell(query), ...rowOf(head, i).map((w) => w.toFixed(6))].join(",")),
  );
  return lines.join("\n") + "\n";
}

function wireExports(state) {
  const name = () => `head-${state.layer + 1}-${state.head + 1}`;
  byId("save-svg").addEventListener("click", () =>
    save(`${name()}.svg`, svgOfHead(headView.head, state), "image/svg+xml"),
  );
  byId("save-csv").addEventListener("click", () =>
    save(`${name()}.csv`, csvOfHead(headView.head, state), "text/csv"),
  );
  byId("save-png").addEventListener("click", () => {
    byId("picture")
      .querySelector("canvas")
      .toBlob((blob) => save(`${name()}.png`, blob));
  });
}
