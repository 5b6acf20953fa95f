// How alike two heads are: the share of their weight that both put in the same places, the mean over
// the rows in which either sees anything. 1: the same head; 0: never the same place.
const weightOfCode = Float64Array.from({ length: 1 << meta.bits }, (_, code) => toWeight(code));

function overlap(a, b) {
  let sum = 0;
  let rows = 0;
  for (let row = 0; row < a.rows; ++row) {
    let seen = 0;
    let both = 0;
    for (let at = row * a.columns; at < (row + 1) * a.columns; ++at) {
      seen |= a.codes[at] | b.codes[at];
      both += weightOfCode[Math.min(a.codes[at], b.codes[at])];
    }
    rows += seen ? 1 : 0;
    sum += both;
  }
  return rows > 0 ? sum / rows : 0;
}
