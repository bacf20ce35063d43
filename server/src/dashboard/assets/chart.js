// How many tasks waited, were ready and ran over the last minutes. The samples are this tab's own.

import { html, svg } from "./dom.js";

/** How far back the chart reaches. */
const SPAN_MS = 5 * 60_000;
const WIDTH = 600;
const HEIGHT = 120;
const SERIES = [["waiting", "wait for other tasks"], ["ready", "wait for a worker"], ["running", "run"]];

const samples = [];

/** Keeps a sample; none that a chart does not show. */
export function sample(nowMs, queue) {
  samples.push({ at: nowMs, ...queue });
  while (samples[0].at < nowMs - SPAN_MS) samples.shift();
}

/** The chart of all samples, with its legend. */
export function chart(nowMs) {
  const most = Math.max(4, ...samples.flatMap(({ waiting, ready, running }) => [waiting, ready, running]));
  const x = (at) => (WIDTH * (1 - (nowMs - at) / SPAN_MS)).toFixed(1);
  const y = (count) => (HEIGHT * (1 - count / most)).toFixed(1);
  const points = (name) => samples.map((one) => `${x(one.at)},${y(one[name])}`).join(" ");
  const last = samples[samples.length - 1] ?? { waiting: 0, ready: 0, running: 0 };
  const told = SERIES.map(([name, words]) => `${last[name]} ${words}`).join(", ");
  return html("figure", { class: "panel" },
    svg("svg", { class: "chart", viewBox: `0 -4 ${WIDTH} ${HEIGHT + 8}`, preserveAspectRatio: "none", role: "img", "aria-label": `Tasks now: ${told}` },
      svg("line", { class: "axis", x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT }),
      svg("line", { class: "axis", x1: 0, x2: WIDTH, y1: 0, y2: 0 }),
      SERIES.map(([name]) => svg("polyline", { class: name, points: points(name) }))),
    html("figcaption", { class: "soft" }, `Tasks over the last ${SPAN_MS / 60_000} minutes; the upper line is ${most}.`),
    html("ul", { class: "legend" }, SERIES.map(([name, words]) => html("li", {},
      svg("svg", { class: "chart key", width: 18, height: 10, viewBox: "0 0 18 10", "aria-hidden": "true" }, svg("polyline", { class: name, points: "0,5 18,5" })),
      `${last[name]} ${words}`))));
}
