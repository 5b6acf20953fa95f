// Colours of numbers. Signed ones go from blue over paper to orange, which reads with any colour
// blindness; weights take the ramp of the page of heads.
const signedStops = {
  light: ["#123f8f", "#4f8fd9", "#b9d4f0", "#fbf8f3", "#f7cfa4", "#dd8136", "#8f3a06"],
  dark: ["#a9d0ff", "#4d8fe0", "#1f3f70", "#17141d", "#6b3410", "#d9782c", "#ffd3a3"],
};
const signedTables = {
  light: makeRamp(signedStops.light),
  dark: makeRamp(signedStops.dark),
};
const hiddenColours = { light: "#8f8799", dark: "#6b6478" };
const nanColours = { light: "#e3b505", dark: "#e3b505" };

// -inf is a hidden pair, and no part of the scale.
function largestOf(all) {
  let largest = 0;
  for (let i = 0; i < all.rows; ++i) {
    for (let j = 0; j < all.columns; ++j) {
      const size = Math.abs(all.at(i, j));
      if (size > largest && Number.isFinite(size)) largest = size;
    }
  }
  return largest;
}

// Number -> [red, green, blue], for numbers up to `largest`.
function painter(kind, largest, theme) {
  const table = kind === "weights" ? rampTables[theme] : signedTables[theme];
  return (x) => {
    if (Number.isNaN(x)) return channels(nanColours[theme]);
    if (x === -Infinity) return channels(hiddenColours[theme]);
    const share = largest > 0 ? Math.min(1, Math.max(-1, x / largest)) : 0;
    const tone = kind === "weights" ? toneOf(share) : Math.round(127.5 + 127.5 * share);
    return table.slice(3 * tone, 3 * tone + 3);
  };
}

// Behind a number, pale enough to read it.
function tintOf(kind, x, largest, theme) {
  if (x === -Infinity || Number.isNaN(x)) return "";
  const size = largest > 0 ? Math.abs(x) / largest : 0;
  const share = kind === "weights" ? Math.sqrt(size) : size;
  const colour =
    kind === "weights" ? ramps[theme][3] : signedStops[theme][x < 0 ? 1 : 5];
  const alpha = Math.round(64 * Math.min(1, share)).toString(16).padStart(2, "0");
  return `${colour}${alpha}`;
}

// What a pixel shows where it holds many numbers: the largest in size, NaN before all.
function pooled(all, height, width) {
  const cells = new Float64Array(height * width);
  const filled = new Uint8Array(height * width);
  for (let i = 0; i < all.rows; ++i) {
    const to = Math.floor((i * height) / all.rows) * width;
    for (let j = 0; j < all.columns; ++j) {
      const place = to + Math.floor((j * width) / all.columns);
      const x = all.at(i, j);
      const shown = cells[place];
      const wins =
        !filled[place] || Number.isNaN(x) || shown === -Infinity ||
        (x !== -Infinity && Math.abs(x) > Math.abs(shown));
      if (wins) cells[place] = x;
      filled[place] = 1;
    }
  }
  return cells;
}

const mostPixels = { rows: 256, columns: 768 };

function paintPiece(canvas, all, kind, largest, theme) {
  const height = Math.min(all.rows, mostPixels.rows);
  const width = Math.min(all.columns, mostPixels.columns);
  canvas.height = height;
  canvas.width = width;
  const colour = painter(kind, largest, theme);
  const image = new ImageData(width, height);
  pooled(all, height, width).forEach((x, n) => image.data.set([...colour(x), 255], 4 * n));
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function gradientOf(kind, theme) {
  if (kind === "weights") return rampGradient(theme);
  return `linear-gradient(to right, ${signedStops[theme].join(", ")})`;
}
