// Elements from values. Text is always set as text: nothing that the service tells can become markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return node;
}

/** An HTML element; attributes that are functions listen to the event of their name. */
export function html(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element. */
export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** A table whose rows become cards on narrow screens. Rows are arrays of cells: text, a node, or a list of both. */
export function table(caption, heads, rows, empty) {
  if (rows.length === 0) return html("p", { class: "soft" }, empty);
  const cells = (row) => row.map((cell, column) => html("td", { "data-label": heads[column] }, html("div", {}, cell)));
  return html("table", { class: "stacked" },
    html("caption", {}, caption),
    html("thead", {}, html("tr", {}, heads.map((head) => html("th", { scope: "col" }, head)))),
    html("tbody", {}, rows.map((row) => html("tr", {}, cells(row)))));
}

/** A list of names with values; values that are null are left out. */
export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return html("dl", { class: "facts" }, known.map(([name, value]) => [html("dt", {}, name), html("dd", {}, value)]));
}

/** A state in its colour. */
export function state(name) {
  return html("span", { class: `state state-${name.replace(/[^A-Z]/g, "")}` }, name);
}

/** Labels, each as key=value. */
export function labels(map) {
  return Object.entries(map).map(([key, value]) => html("span", { class: "label" }, `${key}=${value}`));
}

/** A bar for a share from 0 to 1. */
export function bar(share, of) {
  return html("progress", { max: 1, value: share, "aria-label": `Progress of ${of}` }, `${Math.round(share * 100)} %`);
}

/** Replaces what a place shows, and keeps the keyboard's place where an element has the same data-key again. */
export function show(place, ...children) {
  const focused = place.contains(document.activeElement) ? document.activeElement.getAttribute("data-key") : null;
  place.replaceChildren(...children.flat(Infinity).filter((child) => child));
  if (focused !== null) [...place.querySelectorAll("[data-key]")].find((node) => node.getAttribute("data-key") === focused)?.focus();
}
