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
  const last = first + meta.headDim - 1;
  const columns = first === last ? `column ${first}` : `columns ${first} to ${last}`;
  const formula = `Head ${head + 1} takes ${columns}.`;
  const [heads, rows] = [meta.heads.of, meta.queries.of];
  const shapes =
    `q: ${dims(rows, width())} \u2192 ${dims(heads, rows, meta.headDim)}\n` +
    `k, v: ${dims(meta.keys.of, width())} \u2192 ${dims(heads, keyCount(), meta.headDim)}`;
  return { formula, shapes, shows: made };
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
