// What each step shows for the chosen query and head, 0-based and within what the page holds.
const dot = " \u00b7 ";
const dims = (...sizes) => `[${sizes.join(", ")}]`;
const note = (text) => element("p", { className: "note" }, text);
const embedDim = () => shapeOf("query")[1];
const width = () => meta.heads.of * meta.headDim;
const keyCount = () => meta.keys.of + meta.extra.length;
const subscript = (name, j) => `${name}[${j}]`;

// "a = 0.1 * 0.2 + ... = 0.3", all of them looked up: how one number of the step comes about.
function worked(result, factors, offset, value) {
  const shown = factors.slice(0, 3).map(([a, b]) => `${numberText(a)} \u00d7 ${numberText(b)}`);
  if (factors.length > 3) shown.push(`\u2026 (${factors.length - 3} more)`);
  if (offset !== null) shown.push(numberText(offset));
  const sum = shown.join(" + ");
  return element("p", { className: "worked" }, `${result} = ${sum} = ${numberText(value)}`);
}

const linearShapes = (rows, from, to, bias) =>
  `${dims(rows, from)}${dot}${dims(to, from)}\u1d40${bias ? ` + ${dims(to)}` : ""}` +
  ` \u2192 ${dims(rows, to)}`;

// A weight [out, in] and its bias, where the page holds them; the head's rows are marked.
function parameterFigures(letter, head) {
  const made = [];
  const range = head === null ? [] : [{ row: head * meta.headDim, rows: meta.headDim }];
  const columns = head === null ? [] : [{ column: head * meta.headDim, columns: meta.headDim }];
  if (has(`w_${letter}`)) {
    made.push(figureOf({ name: `W_${letter}`, numbers: columnsOf(`w_${letter}`), marks: range }));
  }
  if (has(`b_${letter}`)) {
    const inHead = (_, j) => head !== null && Math.floor(j / meta.headDim) === head;
    const numbers = vectorOf(`b_${letter}`);
    made.push(figureOf({ name: `b_${letter}`, numbers, marks: columns, mine: inHead }));
  }
  return made;
}

function workedProjection({ letter, input, output, row, element: at }) {
  if (!has(`w_${letter}`)) return [];
  const weights = columnsOf(`w_${letter}`);
  const factors = numbered(input.columns).map((_, i) => [input.at(row, i), weights.at(at, i)]);
  const offset = has(`b_${letter}`) ? numbersOf(`b_${letter}`)[at] : null;
  return [worked(subscript(output.name, at), factors, offset, output.at(row, at))];
}

function project({ query, head }) {
  const made = [];
  const inHead = (_, j) => Math.floor(j / meta.headDim) === head;
  const marks = [{ column: head * meta.headDim, columns: meta.headDim }];
  const input = columnsOf("query");
  const q = columnsOf("q");
  const name = `query ${meta.queries.first + query}`;
  made.push(figureOf({ name, key: "query", numbers: rowOf(input, query) }));
  made.push(...parameterFigures("q", head));
  const words = `q of this query, all heads; head ${head + 1} is marked`;
  made.push(figureOf({ name: "q", words, numbers: rowOf(q, query), marks, mine: inHead }));
  made.push(
    ...workedProjection({
      letter: "q",
      input,
      output: { name: "q", at: q.at },
      row: query,
      element: head * meta.headDim,
    }),
  );
  for (const [letter, source] of [["k", "key"], ["v", has("value") ? "value" : "key"]]) {
    const rowLabels = numbered(meta.keys.count, meta.keys.first);
    const same = letter === "v" && source === "key";
    if (!same) {
      const numbers = columnsOf(source);
      made.push(figureOf({ name: source, numbers, rowLabels, corner: "key" }));
    }
    made.push(...parameterFigures(letter, head));
    const from = same ? "of the keys' rows: no other values are given" : "";
    const numbers = columnsOf(letter);
    made.push(
      figureOf({ name: letter, words: from, numbers, rowLabels, marks, corner: "key", mine: inHead }),
    );
  }
  const shapes = ["query", "key", has("value") ? "value" : "key"].map((source, n) =>
    linearShapes(n ? meta.keys.of : meta.queries.of, shapeOf(source)[1], width(), meta.inBias),
  );
  const lines = shapes.map((shape, n) => `${"qkv"[n]}: ${shape}`);
  return { shapes: lines.join("\n"), shows: made };
}

function split({ query, head }) {
  const made = [];
  const first = head * meta.headDim;
  const name = (letter) => `${letter} of head ${head + 1}`;
  const q = rowOf(headColumns("q", head), query);
  made.push(figureOf({ name: name("q"), key: "q of head", numbers: q }));
  for (const letter of ["k", "v"]) {
    const numbers = headColumns(letter, head);
    const key = `${letter} of head`;
    made.push(
      figureOf({ name: name(letter), key, numbers, rowLabels: keyLabels(letter), corner: "key" }),
    );
  }
  const extra = {
    bias_k: "bias_k and bias_v, learned, join as one more key and value.",
    zero: "add_zero_attn appends one more key and value, all zero.",
  };
  made.unshift(...meta.extra.map((column) => note(extra[column])));
  const formula = `Head ${head + 1} takes columns ${first} to ${first + meta.headDim - 1}.`;
  const [heads, rows] = [meta.heads.of, meta.queries.of];
  const shapes =
    `q: ${dims(rows, width())} \u2192 ${dims(heads, rows, meta.headDim)}\n` +
    `k, v: ${dims(meta.keys.of, width())} \u2192 ${dims(heads, keyCount(), meta.headDim)}`;
  return { formula, shapes, shows: made };
}

// One row of what is per pair, and all rows of the head as a picture in which one can be chosen.
function pairFigures(name, { query, head }, options = {}) {
  const all = pairsOf(name, head);
  const largest = largestOf(all);
  const columnLabels = keyLabels();
  const common = { largest, columnLabels, ...options };
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
  if (hidden.length) words.push(`Hidden (\u2212\u221e): ${ranges(hidden, keyLabels())}.`);
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
  const masks = element("ul", { className: "masks" }, ...meta.masks.map((text) => element("li", {}, visible(text))));
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
    shows.unshift(note(`Keys that this page does not hold carry ${numberText(share)} of the weight.`));
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

function concatenate({ query, head }) {
  const marks = [{ column: head * meta.headDim, columns: meta.headDim }];
  const mine = (_, j) => Math.floor(j / meta.headDim) === head;
  const words = `head ${head + 1} is marked`;
  const numbers = rowOf(columnsOf("heads"), query);
  const from = `${meta.heads.of} \u00d7 ${dims(meta.queries.of, meta.headDim)}`;
  return {
    shapes: `${from} \u2192 ${dims(meta.queries.of, width())}`,
    shows: [figureOf({ name: "concatenated", words, numbers, marks, mine })],
  };
}

function projectOut({ query }) {
  const out = columnsOf("out");
  const shows = [...parameterFigures("o", null)];
  shows.push(figureOf({ name: "out", numbers: rowOf(out, query) }));
  shows.push(
    ...workedProjection({
      letter: "o",
      input: columnsOf("heads"),
      output: { name: "out", at: out.at },
      row: query,
      element: 0,
    }),
  );
  return { shapes: linearShapes(meta.queries.of, width(), embedDim(), meta.outBias), shows };
}

function fastPath({ query }) {
  const difference = numbersOf("difference")[0];
  return {
    shapes: `${meta.fastPath}: ${dims(meta.queries.of, embedDim())}`,
    shows: [
      figureOf({ name: "out", key: "fast out", numbers: rowOf(columnsOf("fast"), query) }),
      element(
        "p",
        {},
        `Largest difference from step 9, over the queries computed: ${numberText(difference)}. ` +
          "polyhead verify holds it against what rounding may do.",
      ),
    ],
  };
}

const stepFunctions = [
  project, split, scores, scale, mask, softmax, weightedSum, concatenate, projectOut,
];
