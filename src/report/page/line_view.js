// The head as lines: the tokens that look on the left, the tokens looked at on the right.
const lineView = {
  maxTokens: 128,

  fits: (head) => Math.max(head.rows, head.columns) <= lineView.maxTokens,
  rowHeight(head) {
    const tokens = Math.max(head.rows, head.columns);
    return tokens <= 16 ? 32 : tokens <= 40 ? 26 : 18;
  },

  build(host, head, state, choose) {
    const labels = labelsOf(state.item);
    const list = (side, names, heading) => this.list(side, names, heading, state, choose);
    const canvas = element("canvas", { "aria-hidden": "true" });
    const left = list("query", labels.queries, "Tokens that look");
    const right = list("key", labels.keys, "Tokens looked at");
    const box = element("div", { className: "lines" }, left, canvas, right);
    box.style.setProperty("--row", `${this.rowHeight(head)}px`);
    host.replaceChildren(box);
  },

  list(side, names, heading, state, choose) {
    const options = names.map((name, index) => {
      const option = element(
        "li",
        { role: "option", id: `${side}-${index}`, "aria-selected": "false" },
        element("i", { className: "share" }),
        tokenElement("span", name, { className: "token" }),
      );
      option.addEventListener("pointerenter", () => choose(side, index, true));
      option.addEventListener("click", () => choose(side, index, false));
      return option;
    });
    const list = element(
      "ul",
      { role: "listbox", className: side, tabIndex: 0, "aria-label": heading },
      ...options,
    );
    list.addEventListener("pointerleave", () => choose(null, -1, true));
    list.addEventListener("keydown", (event) => {
      const now = state.side === side ? state.token : -1;
      const steps = { ArrowDown: now + 1, ArrowUp: now - 1, Home: 0, End: names.length - 1 };
      const other = { ArrowRight: "key", ArrowLeft: "query" }[event.key];
      if (event.key in steps)
        choose(side, Math.min(names.length - 1, Math.max(0, steps[event.key])), false);
      else if (event.key === "Escape") choose(null, -1, false);
      else if (other) list.parentElement.querySelector(`.${other}`).focus();
      else return;
      event.preventDefault();
    });
    return list;
  },

  // { from, to, weight, lit }, weakest first so that strong lines lie on top. Of the chosen token
  // every link is there, however weak.
  links(head, state) {
    const links = [];
    const { side, token } = state.shown;
    for (let row = 0; row < head.rows; ++row) {
      const weights = rowOf(head, row);
      const kept = new Set(strongest(weights, side === "query" && row === token ? 1 : state.mass));
      if (side === "key" && weights[token] > 0) kept.add(token);
      for (const column of kept) {
        const lit = side === null || (side === "query" ? row : column) === token;
        links.push({ from: row, to: column, weight: weights[column], lit });
      }
    }
    return links.sort((a, b) => a.lit - b.lit || a.weight - b.weight);
  },

  // Strong lines are thick and dark; where all are weak they stay faint, or they would be a tangle.
  // Of a chosen token even weak ones are seen, and the others leave a trace.
  pen(link, chosen, theme) {
    const floor = chosen ? 0.45 : 0.22;
    const alpha = chosen ? 0.25 + 0.75 * Math.sqrt(link.weight) : 0.05 + link.weight ** 0.75;
    return {
      colour: toneColour(theme, floor + (1 - floor) * link.weight),
      width: link.lit ? 0.8 + 3.2 * link.weight : 0.6,
      alpha: link.lit ? Math.min(1, alpha) : 0.08,
    };
  },

  draw(head, state) {
    const box = byId("picture").firstElementChild;
    const canvas = box.querySelector("canvas");
    const row = this.rowHeight(head);
    const width = canvas.clientWidth;
    const height = Math.max(head.rows, head.columns) * row;
    canvas.width = width * devicePixelRatio;
    canvas.height = height * devicePixelRatio;
    canvas.style.height = `${height}px`;
    const pen = canvas.getContext("2d");
    pen.scale(devicePixelRatio, devicePixelRatio);
    pen.lineCap = "round";
    for (const link of this.links(head, state)) {
      const style = this.pen(link, state.shown.side !== null, state.theme);
      const [y0, y1] = [(link.from + 0.5) * row, (link.to + 0.5) * row];
      pen.strokeStyle = style.colour;
      pen.lineWidth = style.width;
      pen.globalAlpha = style.alpha;
      pen.beginPath();
      pen.moveTo(0, y0);
      pen.bezierCurveTo(width * 0.4, y0, width * 0.6, y1, width, y1);
      pen.stroke();
    }
    this.shares(box, head, state);
  },

  // Beside the chosen token: how much each token of the other side gives to it or gets from it.
  shares(box, head, state) {
    const { side, token } = state.shown;
    const weights =
      side === "query" ? rowOf(head, token) : side === "key" ? columnOf(head, token) : null;
    for (const mine of ["query", "key"]) {
      const chosen = side === mine ? `${mine}-${token}` : "";
      box.querySelector(`.${mine}`).setAttribute("aria-activedescendant", chosen);
      [...box.querySelector(`.${mine}`).children].forEach((option, index) => {
        const chosen = side === mine && index === token;
        const weight = weights && side !== mine ? weights[index] : 0;
        option.setAttribute("aria-selected", String(chosen));
        option.classList.toggle("chosen", chosen);
        option.style.setProperty("--weight", weight.toFixed(4));
        option.firstElementChild.textContent =
          weights && side !== mine && weight >= 0.005 ? percent(weight) : "";
      });
    }
  },
};
