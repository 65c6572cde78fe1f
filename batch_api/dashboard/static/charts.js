// Charts: each is made once, and given new data for as long as its page is open. A section with
// `data-charts` asks for a series (htmx does, see charts.html); its figures draw columns of it.
"use strict";

// By kind of figure: the columns, what the legend calls them, and the colour's name in dashboard.css.
const KINDS = {
  lines: [["completed", "completed", "--good", true], ["failed", "failed", "--bad"]],
  tokens: [["input_tokens", "in", "--soft"], ["output_tokens", "out", "--accent", true]],
  latency: [["p50", "P50", "--good"], ["p95", "P95", "--warn"], ["p99", "P99", "--bad"]],
};
const HEIGHT = 190;
const charts = new Map(); // by figure

// light-dark() is resolved only where it is used: a probe element tells which colour it is now.
function resolved(name) {
  const probe = document.getElementById("colour-probe") ?? document.body.appendChild(Object.assign(document.createElement("i"), { id: "colour-probe", hidden: true }));
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

function number(value) {
  if (value == null) return "–";
  const digits = value >= 100 ? 0 : value >= 10 ? 1 : value >= 1 ? 2 : 3;
  return value.toLocaleString("en", { maximumFractionDigits: digits }).replaceAll(",", "\u202f");
}

// Times of the day, to the second if there are few of them; or days, if there are many.
function moments(chart, seconds) {
  const length = chart.scales.x.max - chart.scales.x.min;
  const part = length > 3 * DAY ? [5, 10] : length > 5 * MINUTE ? [11, 16] : [11, 19];
  return seconds.map((at) => moment(chart, at).slice(...part));
}

function moment(_chart, at) {
  return at == null ? "–" : local(new Date(at * 1000));
}

// What took less than a minute is in the middle of one. (Of a single step uPlot would show years.)
function around(chart, low, high) {
  const end = chart.data[0].length === 1 ? low : high;
  const spare = Math.max(0, 60 - (end - low)) / 2;
  return [low - spare, end + spare];
}

function axis(more) {
  return {
    stroke: () => resolved("--soft"),
    grid: { stroke: () => resolved("--line"), width: 1 },
    ticks: { stroke: () => resolved("--line"), width: 1, size: 4 },
    font: "12px system-ui, sans-serif",
    ...more,
  };
}

// Values without a neighbour on either side: no line leads to them.
function lonely(chart, series) {
  const values = chart.data[series];
  const isAlone = (at) => values[at] != null && values[at - 1] == null && values[at + 1] == null;
  const found = [...values.keys()].filter(isAlone);
  return found.length ? found : null;
}

// A minute's latencies stand at its beginning: a line leads from one to the next. Each column is drawn
// over those before it, so its dots are smaller: of equal ones there are rings to be seen.
function line([, label, name, isFilled], index, all) {
  return {
    label,
    stroke: () => resolved(name),
    fill: isFilled ? () => resolved(name).replace("rgb(", "rgba(").replace(")", ", 0.12)") : undefined,
    width: 1.5,
    points: { show: false, filter: lonely, size: 5 + 4 * (all.length - 1 - index), fill: () => resolved(name) },
    spanGaps: all === KINDS.latency,
    value: (_chart, value) => number(value),
  };
}

function made(figure, data) {
  const place = figure.querySelector(".plot");
  const chart = new uPlot({
    width: place.clientWidth,
    height: HEIGHT,
    padding: [null, 32, null, null], // room for half of the last time
    legend: { live: true },
    cursor: { y: false, drag: { setScale: false } },
    scales: { x: { range: around }, y: { range: (_chart, _low, high) => [0, high > 0 ? high * 1.1 : 1] } },
    axes: [axis({ values: moments, space: 70 }), axis({ size: 54, values: (_chart, values) => values.map(number) })],
    series: [{ label: "at", value: moment }, ...KINDS[figure.dataset.chart].map(line)],
  }, data, place);
  // Its legend is a table, of rows with one head each.
  place.querySelectorAll("th").forEach((head) => { head.scope = "row"; });
  return chart;
}

function draw(section, series) {
  for (const figure of section.querySelectorAll("[data-chart]")) {
    const columns = KINDS[figure.dataset.chart].map(([name]) => series[name]);
    const data = [series.times, ...columns];
    figure.classList.toggle("nothing", !columns.some((column) => column.some((value) => value)));
    if (charts.has(figure)) charts.get(figure).setData(data);
    else charts.set(figure, made(figure, data));
  }
}

const sizes = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) {
    const chart = charts.get(target.parentElement);
    if (chart && contentRect.width && chart.width !== Math.floor(contentRect.width)) {
      chart.setSize({ width: Math.floor(contentRect.width), height: HEIGHT });
    }
  }
});

document.addEventListener("htmx:afterRequest", (event) => {
  const section = event.detail.elt.closest("[data-charts]");
  if (!section || !event.detail.successful) return;
  draw(section, JSON.parse(event.detail.xhr.responseText));
  section.querySelectorAll(".plot").forEach((place) => sizes.observe(place));
});

function repaint() {
  charts.forEach((chart) => chart.redraw());
}
document.addEventListener("theme", repaint);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
