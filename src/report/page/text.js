// Text that came from outside is shown, never obeyed: controls and marks that would reorder or hide
// the text around them are written out.
const hidden = new RegExp(
  "[\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u061c\\u200b-\\u200f\\u2028-\\u202e" +
    "\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb]",
  "g",
);

function codePoint(character) {
  const hex = character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
  return `\u27e8U+${hex}\u27e9`;
}

function visible(text) {
  return text === "" ? "\u27e8empty\u27e9" : text.replace(hidden, codePoint);
}

function percent(weight) {
  const share = 100 * weight;
  if (share === 0) return "0 %";
  if (share < 0.1) return "< 0.1 %";
  return `${share < 10 ? share.toFixed(1) : share.toFixed(0)} %`;
}

// An element with properties, attributes (names with a dash, and role) and children.
function element(name, properties, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties || {})) {
    if (key.includes("-") || key === "role") made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children);
  return made;
}

// A token: isolated, so that a right-to-left word does not reorder its surroundings.
function tokenElement(name, label, properties) {
  return element(name, { dir: "auto", ...properties }, visible(label));
}

const byId = (id) => document.getElementById(id);
