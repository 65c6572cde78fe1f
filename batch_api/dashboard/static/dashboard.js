// What every page does: tells times, shows when the server is away and what it refused, and asks for
// nothing while nobody looks.
"use strict";

const MINUTE = 60, HOUR = 60 * MINUTE, DAY = 24 * HOUR;

function ago(seconds) {
  const size = Math.abs(seconds);
  const [count, unit] =
    size < MINUTE ? [size, "s"] : size < HOUR ? [size / MINUTE, "min"] : size < DAY ? [size / HOUR, "h"] : [size / DAY, "d"];
  const words = `${Math.floor(count)} ${unit}`;
  return seconds < 0 ? `in ${words}` : `${words} ago`;
}

// As in_words.py tells it.
const DURATIONS = [[DAY, "d"], [HOUR, "h"], [MINUTE, "min"], [1, "s"]];

function duration(seconds) {
  const whole = Math.round(Math.max(0, seconds));
  const largest = DURATIONS.findIndex(([size]) => whole >= size);
  if (largest < 0 || largest === DURATIONS.length - 1) return `${whole} s`;
  const [[size, unit], [smallerSize, smallerUnit]] = DURATIONS.slice(largest);
  const rest = Math.floor((whole % size) / smallerSize);
  return `${Math.floor(whole / size)} ${unit}${rest ? ` ${String(rest).padStart(2, "0")} ${smallerUnit}` : ""}`;
}

const toldAt = new WeakMap(); // by element: what the server has told of it, and when

// What takes a while goes on between answers, by our own clock: the server's may differ.
function tick(place) {
  const { seconds, each } = place.dataset;
  if (toldAt.get(place)?.seconds !== seconds) toldAt.set(place, { seconds, at: performance.now() });
  const passed = (performance.now() - toldAt.get(place).at) / 1000;
  write(place, duration(Number(seconds) + Number(each) * passed));
}

function write(place, words) {
  if (place.textContent !== words) place.textContent = words;
}

// In the visitor's zone, written as the server writes it: 2026-11-22 17:05:00, which is how Swedes do.
function local(at) {
  return at.toLocaleString("sv");
}

function tell(time) {
  const at = new Date(time.dateTime);
  const moment = local(at);
  if (time.title !== moment) time.title = moment;
  write(time, time.dataset.style === "ago" ? ago((Date.now() - at) / 1000) : moment);
}

function tellTimes() {
  if (document.hidden) return;
  document.querySelectorAll("time").forEach(tell);
  document.querySelectorAll("[data-seconds]").forEach(tick);
}

function notice(text, kind = "error") {
  const line = document.createElement("p");
  line.className = kind;
  line.textContent = text;
  document.getElementById("notices").replaceChildren(line);
  setTimeout(() => line.remove(), 8000);
}

function reason(answer) {
  try {
    return JSON.parse(answer.responseText).error.message;
  } catch {
    return `The server answered ${answer.status}.`;
  }
}

let isStale = false;
const askedAt = new WeakMap(); // by element, for those that ask again and again, of what is over
const OVER_MS = 60_000;

const isOver = () => document.querySelector("#live [data-over]") !== null;
const NEVER_ASKED = isOver() ? 0 : -Infinity; // what was over before the page is all there

// What is over (`data-over`) changes no more: asked once since, it is only looked for now and then.
function canWait(element) {
  return element.closest("#live") && isOver() && performance.now() < (askedAt.get(element) ?? NEVER_ASKED) + OVER_MS;
}

// At once, whatever the page waits for.
function refresh() {
  const live = document.getElementById("live");
  if (live) htmx.ajax("GET", live.getAttribute("hx-get"), { source: live, target: live, swap: "morph:innerHTML" }).catch(() => {});
}

document.addEventListener("htmx:beforeRequest", (event) => {
  const { elt, requestConfig } = event.detail;
  const isUpdate = requestConfig.triggeringEvent?.type.startsWith("sse:");
  if (document.hidden && isUpdate) isStale = true;
  if (isUpdate && (document.hidden || canWait(elt))) event.preventDefault();
  else if (isOver()) askedAt.set(elt, performance.now());
});

// A browser has six connections to a server for all its pages: those that nobody sees keep none.
class PageEvents {
  constructor(url) {
    this.url = url;
    this.listeners = [];
    if (!document.hidden) this.open();
  }
  open() {
    this.source = new EventSource(this.url);
    this.source.onopen = (event) => this.onopen(event);
    this.source.onerror = (event) => this.onerror(event);
    for (const [name, listener] of this.listeners) this.source.addEventListener(name, listener);
  }
  close() {
    this.source?.close();
  }
  addEventListener(name, listener) {
    this.listeners.push([name, listener]);
    this.source?.addEventListener(name, listener);
  }
  removeEventListener(name, listener) {
    this.listeners = this.listeners.filter((each) => each[1] !== listener);
    this.source?.removeEventListener(name, listener);
  }
  get readyState() {
    return this.source?.readyState ?? EventSource.CLOSED;
  }
}
let pageEvents = null;
htmx.createEventSource = (url) => (pageEvents = new PageEvents(url));

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    pageEvents?.close();
    return;
  }
  if (pageEvents?.readyState === EventSource.CLOSED) pageEvents.open();
  if (!isStale) return;
  isStale = false;
  refresh();
});
// Who draws for itself is left alone. What the visitor has opened stays open, and who had the focus of something that is gone goes on from there.
Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, node) => !(name === "open" && node.matches("details, dialog"));
Idiomorph.defaults.callbacks.beforeNodeMorphed = (node) => !(node instanceof HTMLElement && "keep" in node.dataset);
let hadFocus = false;
document.addEventListener("htmx:beforeSwap", (event) => { hadFocus = event.detail.target.contains(document.activeElement); });
document.addEventListener("htmx:afterSettle", () => {
  if (hadFocus && document.activeElement === document.body) document.getElementById("main").focus({ preventScroll: true });
});

document.addEventListener("htmx:afterRequest", ({ detail }) => {
  if (detail.successful && detail.requestConfig.verb === "delete") refresh();
});
document.addEventListener("htmx:afterSwap", tellTimes);
document.addEventListener("htmx:responseError", (event) => notice(reason(event.detail.xhr)));
document.addEventListener("htmx:sseError", () => {
  const banner = document.getElementById("connection");
  // Whose session has ended is sent to sign in by the answer.
  if (banner.hidden) refresh();
  banner.hidden = false;
});
document.addEventListener("htmx:sseOpen", () => { document.getElementById("connection").hidden = true; });

document.addEventListener("click", (event) => {
  if (!event.target.closest("[data-switch-theme]")) return;
  const root = document.documentElement;
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
  try { localStorage.setItem("theme", root.dataset.theme); } catch { /* for this page only, then */ }
  document.dispatchEvent(new Event("theme"));
});

document.addEventListener("DOMContentLoaded", () => {
  tellTimes();
  const zone = document.getElementById("zone");
  if (zone) zone.textContent = Intl.DateTimeFormat().resolvedOptions().timeZone;
});
setInterval(tellTimes, 1000);
