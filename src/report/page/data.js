// What the blocks of the page of heads mean.
const wide = meta.bits === 16;

function decodeWeights(id) {
  const bytes = decodeBytes(id);
  if (!wide) return bytes;
  const view = new DataView(bytes.buffer);
  return Uint16Array.from({ length: bytes.length / 2 }, (_, i) => view.getUint16(2 * i, true));
}

const toWeight = wide ? (code) => code / 65535 : (code) => (code / 255) ** 2;

// The measures, in the order of the file.
const measures = [
  {
    key: "entropy",
    name: "Entropy",
    unit: "bits",
    help: "2 to this power: as many keys, looked at evenly, would give it",
  },
  {
    key: "distance",
    name: "Mean distance",
    unit: "tokens",
    help: "how far away, in positions, the weight lies on average",
  },
  { key: "previous", name: "Previous token", share: true, help: "weight on the token just before" },
  { key: "next", name: "Next token", share: true, help: "weight on the token just after" },
  {
    key: "diagonal",
    name: "Itself",
    share: true,
    help: "weight on the same position: the diagonal",
  },
  {
    key: "first",
    name: "First token",
    share: true,
    help: "weight on the first token, often a place to rest",
  },
  {
    key: "induction",
    name: "Induction",
    share: true,
    help: "from a token that stood here before, weight on what followed it there",
  },
];

// Of a matrix that is not square only the first means something; the last needs tokens that recur.
function measuresOf(items) {
  const square = items.every((item) => meta.items[item].rows === meta.items[item].columns);
  const recur = (item) =>
    heads.some(({ layer, head }) => !Number.isNaN(statsOf(item, layer, head).induction));
  return measures.filter(
    ({ key }) => key === "entropy" || (square && (key !== "induction" || items.some(recur))),
  );
}

// NaN: there is nothing to measure.
function measureText(measure, value, unit = measure.unit) {
  if (Number.isNaN(value)) return "\u2013";
  return measure.share ? percent(value) : `${value.toFixed(2)} ${unit}`.trim();
}

// One head of one item: codes is [rows, columns] of the quantised weights.
function headOf(item, layer, head) {
  const { rows, columns } = meta.items[item];
  const name = `${layer}-${item}`;
  const all = once(`weights-${name}`, () => decodeWeights(`weights-${name}`));
  const size = rows * columns;
  const codes = all.subarray(head * size, (head + 1) * size);
  return {
    item,
    layer,
    head,
    rows,
    columns,
    codes,
    at: (row, column) => toWeight(codes[row * columns + column]),
  };
}

function statsOf(item, layer, head) {
  const bytes = once(`stats-${layer}-${item}`, () => decodeBytes(`stats-${layer}-${item}`));
  const view = new DataView(bytes.buffer);
  const stats = {};
  measures.forEach((measure, i) => {
    stats[measure.key] = view.getFloat32(4 * (head * measures.length + i), true);
  });
  return stats;
}

function labelsOf(item) {
  const { queries, keys, rows, columns } = meta.items[item];
  const numbers = (n) => Array.from({ length: n }, (_, i) => String(i));
  return {
    queries: queries.length ? queries : numbers(rows),
    keys: keys.length ? keys : numbers(columns),
  };
}

// All heads, in the order of the model.
const heads = meta.layers.flatMap((layer, l) =>
  Array.from({ length: layer.heads }, (_, h) => ({ layer: l, head: h })),
);

function headName({ layer, head }) {
  const { name } = meta.layers[layer];
  return name ? `${name}, head ${head + 1}` : `Head ${head + 1}`;
}

// The places of a row by weight, strongest first, until they carry `mass` of the row.
function strongest(weights, mass) {
  const order = weights
    .map((_, i) => i)
    .filter((i) => weights[i] > 0)
    .sort((a, b) => weights[b] - weights[a]);
  const total = order.reduce((sum, i) => sum + weights[i], 0);
  const kept = [];
  let carried = 0;
  for (const i of order) {
    if (carried >= mass * total && kept.length > 0) break;
    kept.push(i);
    carried += weights[i];
  }
  return kept;
}

const rowOf = (head, row) => Array.from({ length: head.columns }, (_, j) => head.at(row, j));
const columnOf = (head, column) => Array.from({ length: head.rows }, (_, i) => head.at(i, column));
