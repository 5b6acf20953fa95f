// Ramps from paper to ink: lightness changes in one direction all the way, so they read in grey and
// with any colour blindness.
const ramps = {
  light: ["#fbf8f3", "#fbdcbb", "#f6a274", "#cf4f6e", "#7d1f72", "#2a0d45"],
  dark: ["#17141d", "#3a1a55", "#85266f", "#d2516a", "#f8a06b", "#fff0c9"],
};

function channels(colour) {
  return [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
}

function makeRamp(stops) {
  const table = new Uint8ClampedArray(256 * 3);
  const knots = stops.map(channels);
  for (let i = 0; i < 256; ++i) {
    const place = (i / 255) * (knots.length - 1);
    const from = Math.min(Math.floor(place), knots.length - 2);
    for (let c = 0; c < 3; ++c) {
      table[3 * i + c] = knots[from][c] + (knots[from + 1][c] - knots[from][c]) * (place - from);
    }
  }
  return table;
}

const rampTables = { light: makeRamp(ramps.light), dark: makeRamp(ramps.dark) };

// Weight -> entry of the ramp. The root lifts small weights to where the eye can tell them apart.
const toneOf = (weight) => Math.round(255 * Math.sqrt(Math.min(1, Math.max(0, weight))));

function toneColour(theme, weight) {
  const at = 3 * toneOf(weight);
  return `rgb(${rampTables[theme].slice(at, at + 3).join(" ")})`;
}

const rampGradient = (theme) => `linear-gradient(to right, ${ramps[theme].join(", ")})`;
