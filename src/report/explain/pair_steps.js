// The steps between the projections: what is per query and key.
// One row of what is per pair, and all rows of the head as a picture in which one can be chosen.
function pairFigures(name, { query, head }, options = {}) {
  const all = pairsOf(name, head);
  const common = { columnLabels: keyLabels(), ...options };
  // Weights go by the largest in the same figure: those of a long row are small beside another's.
  if (options.kind !== "weights") common.largest = largestOf(all);
  const title = `${name} of query ${meta.queries.first + query}`;
  const made = [figureOf({ ...common, name: title, key: name, numbers: rowOf(all, query) })];
  if (options.whole && all.rows > 1 && all.columns > 0) {
    const words = "a row for each query, a column for each key";
    const marks = [{ row: query, rows: 1 }];
    const mine = (i) => i === query;
    const rowLabels = queryLabels();
    const figure = { ...common, name: `${name} of every query`, words, numbers: all, marks, mine };
    made.push(figureOf({ ...figure, rowLabels, corner: "query", choose: chooseQuery }));
  }
  return made;
}

function scores({ query, head }) {
  const shows = pairFigures("scores", { query, head }, { whole: true });
  const q = headColumns("q", head);
  const k = headColumns("k", head);
  if (k.rows > 0) {
    const factors = numbered(meta.headDim).map((_, d) => [q.at(query, d), k.at(0, d)]);
    const label = `score of key ${keyLabels()[0]}`;
    shows.splice(1, 0, worked(label, factors, null, pairsOf("scores", head).at(query, 0)));
  }
  const from = `${dims(meta.queries.of, meta.headDim)}${dot}${dims(keyCount(), meta.headDim)}\u1d40`;
  return { shapes: `${from} \u2192 ${dims(meta.queries.of, keyCount())}`, shows };
}

const pairShape = () => dims(meta.queries.of, keyCount());

function scale({ query, head }) {
  const shows = pairFigures("scaled", { query, head });
  return { shapes: `${pairShape()} / \u221a${meta.headDim} \u2192 ${pairShape()}`, shows };
}

// "0 to 3, 7": the labels of the places that a row marks.
function ranges(places, labels) {
  const parts = [];
  for (let n = 0; n < places.length; ) {
    let end = n;
    while (end + 1 < places.length && places[end + 1] === places[end] + 1) ++end;
    const [from, to] = [labels[places[n]], labels[places[end]]];
    parts.push(end > n ? `${from} to ${to}` : from);
    n = end + 1;
  }
  return parts.join(", ");
}

// Keys that the query sees, those beyond the page included.
const seen = (query, head) =>
  has("seen") ? numbersOf("seen")[head * meta.queries.count + query] : keyCount();

const emptyText = () =>
  meta.nanRows
    ? "This query sees no key: as asked for, its weights and its output are NaN."
    : "This query sees no key: its weights are 0, this head's output is 0" +
      (meta.outBias ? ", and if no head sees one, the module's output is the bias b_o." : ".");

function maskWords(query, head) {
  const row = rowOf(pairsOf("mask", head), query);
  const places = numbered(row.columns).map(Number);
  const hidden = places.filter((j) => row.at(0, j) === -Infinity);
  const added = places.filter((j) => row.at(0, j) !== -Infinity && row.at(0, j) !== 0);
  const words = [`This query sees ${seen(query, head)} of ${keyCount()} keys.`];
  const held = meta.keys.count < meta.keys.of ? ", of those on this page" : "";
  if (hidden.length) words.push(`Hidden (\u2212\u221e)${held}: ${ranges(hidden, keyLabels())}.`);
  if (added.length) {
    const amounts = added.map((j) => row.at(0, j));
    const [low, high] = [Math.min(...amounts), Math.max(...amounts)].map(numberText);
    const amount = low === high ? low : `from ${low} to ${high}`;
    words.push(`Added: ${amount}, to ${ranges(added, keyLabels())}.`);
  }
  if (meta.extra.length) words.push(`Never masked: ${meta.extra.join(", ")}.`);
  return words.join(" ");
}

function mask({ query, head }) {
  if (!has("mask")) {
    return { shapes: pairShape(), shows: [note("No mask is given: the scores stay as they are.")] };
  }
  const items = meta.masks.map((text) => element("li", {}, visible(text)));
  const masks = element("ul", { className: "masks" }, ...items);
  const shows = [masks, note(maskWords(query, head))];
  if (seen(query, head) === 0) shows.push(note(emptyText()));
  shows.push(...pairFigures("mask", { query, head }));
  shows.push(...pairFigures("masked", { query, head }, { whole: true }));
  const soft = meta.soft ? "mask \u00d7 \u22121e5: a 1 hides softly\n" : "";
  return { shapes: `${soft}${pairShape()} + ${pairShape()} \u2192 ${pairShape()}`, shows };
}

function softmax({ query, head }) {
  const shows = pairFigures("weights", { query, head }, { kind: "weights", whole: true });
  if (seen(query, head) === 0) shows.unshift(note(emptyText()));
  if (has("left_out")) {
    const share = numbersOf("left_out")[head * meta.queries.count + query];
    const carried = `${numberText(share)} of the weight`;
    shows.unshift(note(`Keys that this page does not hold carry ${carried}.`));
  }
  if (meta.heads.count > 1 && keyCount() > 0) {
    const all = piece(meta.heads.count, shapeOf("weights")[2], (h, j) =>
      pairsOf("weights", h).at(query, j),
    );
    shows.push(
      figureOf({
        name: `weights of query ${meta.queries.first + query} in every head`,
        key: "weights in every head",
        numbers: all,
        kind: "weights",
        rowLabels: numbered(meta.heads.count, 1),
        columnLabels: keyLabels(),
        corner: "head",
        marks: [{ row: head, rows: 1 }],
        mine: (h) => h === head,
        choose: chooseHead,
      }),
    );
  }
  return { shapes: `${pairShape()} \u2192 ${pairShape()}, each row adds up to 1`, shows };
}

function weightedSum({ query, head }) {
  const out = columnsOf("heads", head * meta.headDim, meta.headDim);
  const shows = [
    figureOf({ name: `out of head ${head + 1}`, key: "out of head", numbers: rowOf(out, query) }),
  ];
  const weights = pairsOf("weights", head);
  const v = headColumns("v", head);
  if (!has("left_out") && v.rows > 0) {
    const factors = numbered(v.rows).map((_, j) => [weights.at(query, j), v.at(j, 0)]);
    shows.push(worked("out[0]", factors, null, out.at(query, 0)));
  }
  const from = `${pairShape()}${dot}${dims(keyCount(), meta.headDim)}`;
  return { shapes: `${from} \u2192 ${dims(meta.queries.of, meta.headDim)}`, shows };
}

const stepFunctions = [
  project, split, scores, scale, mask, softmax, weightedSum, concatenate, projectOut,
];
