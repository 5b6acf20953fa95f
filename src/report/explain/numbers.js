// The matrices, looked up and never computed: each is decoded once; a piece is a view of one.
const has = (name) => name in meta.matrices;
const shapeOf = (name) => meta.matrices[name];

function numbersOf(name) {
  return once(`m-${name}`, () => {
    const view = new DataView(decodeBytes(`m-${name}`).buffer);
    const length = view.byteLength / 8;
    return Float64Array.from({ length }, (_, i) => view.getFloat64(8 * i, true));
  });
}

const piece = (rows, columns, at) => ({ rows, columns, at });

// Columns [first, first + count) of a matrix, or of one block of a stack of matrices.
function columnsOf(name, first = 0, count = shapeOf(name).at(-1), block = 0) {
  const [rows, columns] = shapeOf(name).slice(-2);
  const numbers = numbersOf(name);
  const start = block * rows * columns + first;
  return piece(rows, count, (i, j) => numbers[start + i * columns + j]);
}

const rowOf = (all, row) => piece(1, all.columns, (_, j) => all.at(row, j));

function vectorOf(name) {
  const numbers = numbersOf(name);
  return piece(1, numbers.length, (_, j) => numbers[j]);
}

function stacked(above, below) {
  if (!below) return above;
  return piece(above.rows + below.rows, above.columns, (i, j) =>
    i < above.rows ? above.at(i, j) : below.at(i - above.rows, j),
  );
}

// What is per pair; one mask may stand for all heads.
const pairsOf = (name, head) =>
  columnsOf(name, 0, shapeOf(name)[2], shapeOf(name)[0] === 1 ? 0 : head);

// A head's columns of q, k or v; the appended rows after the others.
function headColumns(letter, head) {
  const rows = columnsOf(letter, head * meta.headDim, meta.headDim);
  const extra = `extra_${letter}`;
  return stacked(rows, has(extra) && columnsOf(extra, 0, meta.headDim, head));
}

// Numbers for the eye; the whole of each is its tooltip.
function numberText(x) {
  if (Number.isNaN(x)) return "NaN";
  if (!Number.isFinite(x)) return x < 0 ? "\u2212\u221e" : "\u221e";
  const size = Math.abs(x);
  if (size === 0) return "0";
  if (size < 1e-3 || size >= 1e6) return x.toExponential(3);
  return size < 10 ? x.toFixed(4) : x.toFixed(2);
}

const numbered = (count, first = 0) => Array.from({ length: count }, (_, i) => String(first + i));
const queryLabels = () => numbered(meta.queries.count, meta.queries.first);
const keyLabels = (letter = "k") => [
  ...numbered(meta.keys.count, meta.keys.first),
  ...meta.extra.map((name) => (name === "bias_k" ? `bias_${letter}` : name)),
];
