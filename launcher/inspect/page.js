"use strict";
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const model = new KeepModel(data);
const byId = (id) => document.getElementById(id);
const element = (name, className, text) => {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};
const percent = (share) => (100 * share).toFixed(share > 0 && share < 0.0995 ? 1 : 0) + " %";
const number = (value) => value.toLocaleString("en-US", {maximumFractionDigits: 1});
const plural = (count, word) => number(count) + " " + word + (count === 1 ? "" : "s");
const bytes = (value) => {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; value >= 1024 && unit + 1 < units.length; ++unit) value /= 1024;
  return value.toFixed(unit === 0 || value >= 100 ? 0 : 1) + " " + units[unit];
};

const config = data.compression;
const sinks = config.algorithm === "streamingllm" ? config.num_sinks : 0;
const state = {time: model.times.length - 1, layer: -1, head: -1, hover: -1, hoverLayer: -1};
const selection = () => ({layer: state.layer, head: state.head});
const now = () => model.times[state.time];

// --- Colours: the square root of the share, so that a token few heads hold still differs from one that none does ---

const ramps = {
  light: [[232, 240, 238], [186, 222, 205], [105, 190, 181], [35, 139, 158], [21, 88, 130], [18, 43, 92]],
  dark: [[36, 42, 52], [32, 70, 98], [28, 108, 124], [58, 152, 128], [142, 194, 102], [242, 232, 112]],
};
const darkTheme = window.matchMedia("(prefers-color-scheme: dark)");
const steps = 256;
let palette = [];

function makePalette() {
  const stops = ramps[darkTheme.matches ? "dark" : "light"];
  palette = Array.from({length: steps}, (_, i) => {
    const at = i / (steps - 1) * (stops.length - 1), low = Math.min(Math.floor(at), stops.length - 2);
    const rgb = stops[low].map((value, c) => Math.round(value + (at - low) * (stops[low + 1][c] - value)));
    const bright = 0.2126 * (rgb[0] / 255) ** 2.2 + 0.7152 * (rgb[1] / 255) ** 2.2 + 0.0722 * (rgb[2] / 255) ** 2.2;
    return {rgb, css: "rgb(" + rgb + ")", ink: bright > 0.2 ? "#11161b" : "#f4f7fa"};
  });
}
const colourOf = (share) => palette[Math.round(Math.sqrt(Math.min(1, share)) * (steps - 1))];
const cssColour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function drawLegend() {
  const legend = byId("legend");
  legend.replaceChildren(element("span", "", "held by"));
  const scale = element("span", "scale");
  for (const share of [0, 0.02, 0.1, 0.25, 0.5, 0.75, 1]) {
    const step = element("i", "", Math.round(100 * share) + (share === 1 ? " %" : ""));
    step.style.setProperty("--colour", colourOf(share).css);
    scale.append(step);
  }
  legend.append(scale);
  const marks = [["--window", "window"], ["--event", "\u25BE compaction"]];
  if (sinks > 0) marks.unshift(["--sink", "sinks"]);
  for (const [colour, name] of marks) {
    const mark = element("span", "mark", name);
    mark.style.setProperty("--colour", "var(" + colour + ")");
    legend.append(mark);
  }
}

// --- The tokens ---

// Control characters, and those that would turn the page's text around, are shown by their numbers.
const unseen = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
const visible = (text) =>
  text.replace(unseen, (c) => "\u27e8" + c.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0") + "\u27e9");
const special = new Set(data.special);
const shown = (position) => {
  const text = visible(data.texts[position]);
  return text === "" ? "\u00b7" : text.replaceAll("\n", "\u21b5\n");
};
const spans = new Array(model.positions);
const borders = [];  // of events, in the text

function layOutTokens() {
  const parts = [["Prompt", 0, data.prompt_tokens], ["Answer", data.prompt_tokens, model.positions]];
  const eventAfter = new Map(data.events.map((length, i) => [length - 1, i + 1]));
  for (const [name, begin, end] of parts) {
    const part = element("div", "part");
    part.append(element("h2", "", name + " \u00b7 " + plural(end - begin, "token")));
    const tokens = element("div", "tokens");
    for (let position = begin; position < end; ++position) {
      const span = element("span", "", shown(position));
      span.dataset.position = position;
      spans[position] = span;
      tokens.append(span);
      const event = eventAfter.get(position);
      if (event === undefined) continue;
      const border = element("sup", "", event);
      border.title = "compaction " + event + ", after " + plural(position + 1, "token");
      border.dataset.event = event;
      borders[event] = border;
      tokens.append(border);
    }
    part.append(tokens);
    byId("text").append(part);
  }
}

function paintTokens(counts) {
  const pairs = model.pairs(selection()), time = now();
  const length = Math.min(time.length, model.fed);
  for (let position = 0; position < model.positions; ++position) {
    const style = spans[position].style;
    let className = special.has(position) ? "special" : "";
    if (position >= length) {
      className += " future";
    } else if (counts[position] === 0) {
      className += " gone";
    }
    if (position < length && position >= length - config.window) className += " window";
    if (position < Math.min(sinks, length)) className += " sink";
    if (position === state.hover) className += " hover";
    if (counts[position] > 0) {
      const colour = colourOf(counts[position] / pairs);
      style.backgroundColor = colour.css;
      style.color = colour.ink;
    } else {
      style.backgroundColor = style.color = "";
    }
    spans[position].className = className;
  }
  borders.forEach((border, event) => border.classList.toggle("now", event === time.event));
}

// --- Maps: a row of counts each, the positions from left to right ---

class PositionMap {
  // `rows()`: [{counts, of, length, label, chosen}]; `pick(row, position)` on a click.
  constructor(canvas, maxHeight, rows, pick) {
    this.canvas = canvas;
    this.maxHeight = maxHeight;
    this.rows = rows;
    this.base = document.createElement("canvas");
    canvas.addEventListener("pointermove", (e) => {
      const at = this.at(e);
      hover(at.position, e, this.canvas.id === "layers" ? at.row : -1);
    });
    canvas.addEventListener("pointerleave", () => hover(-1));
    canvas.addEventListener("click", (e) => pick(this.at(e)));
  }

  at(e) {
    const box = this.canvas.getBoundingClientRect(), x = e.clientX - box.left - this.left, y = e.clientY - box.top - this.top;
    const inside = x >= 0 && x < this.width && y >= 0 && y < this.height;
    return {
      position: inside ? Math.floor(x / this.width * model.positions) : -1,
      row: inside ? Math.floor(y / this.height * this.current.length) : -1,
    };
  }

  draw() {
    const box = this.canvas.getBoundingClientRect();
    if (box.width === 0) return;
    const dpr = window.devicePixelRatio || 1, rows = this.current = this.rows();
    this.left = 34;
    this.top = 14;
    this.width = Math.max(50, box.width - this.left - 6);
    const rowHeight = Math.max(1, Math.min(14, Math.floor(this.maxHeight / rows.length)));
    this.height = rows.length * rowHeight > 1.5 * this.maxHeight ? this.maxHeight : rows.length * rowHeight;
    const cssHeight = this.top + this.height + 18;
    for (const canvas of [this.canvas, this.base]) {
      canvas.width = Math.round(box.width * dpr);
      canvas.height = Math.round(cssHeight * dpr);
    }
    this.canvas.style.height = cssHeight + "px";
    const context = this.base.getContext("2d");
    this.drawCells(context, rows, dpr);
    context.setTransform(dpr, 0, 0, dpr, 0, 0);
    this.drawLabels(context, rows);
    this.overlay();
  }

  drawCells(context, rows, dpr) {
    const width = Math.round(this.width * dpr), height = Math.round(this.height * dpr);
    const image = context.createImageData(width, height), pixels = new Uint32Array(image.data.buffer);
    const colours = palette.map(({rgb}) => 0xff000000 | rgb[2] << 16 | rgb[1] << 8 | rgb[0]);
    rows.forEach((row, r) => {
      const y0 = Math.floor(r * height / rows.length), y1 = Math.floor((r + 1) * height / rows.length);
      if (y1 === y0) return;
      const line = pixels.subarray(y0 * width, (y0 + 1) * width);
      for (let x = 0; x < width; ++x) {
        const begin = Math.floor(x / width * model.positions);
        const end = Math.min(row.length, Math.max(begin + 1, Math.floor((x + 1) / width * model.positions)));
        if (begin >= end) break;  // not yet fed: the ground
        let sum = 0;
        for (let position = begin; position < end; ++position) sum += row.counts[position];
        line[x] = colours[Math.round(Math.sqrt(sum / (end - begin) / row.of) * (steps - 1))];
      }
      for (let y = y0 + 1; y < y1; ++y) pixels.copyWithin(y * width, y0 * width, (y0 + 1) * width);
    });
    context.putImageData(image, Math.round(this.left * dpr), Math.round(this.top * dpr));
  }

  x(position) { return this.left + position / model.positions * this.width; }

  drawLabels(context, rows) {
    const {left, top, width, height} = this, bottom = top + height, each = height / rows.length;
    context.font = "10.5px system-ui, sans-serif";
    context.fillStyle = cssColour("--muted");
    context.textAlign = "right";
    context.textBaseline = "middle";
    const every = Math.ceil(13 / each);
    rows.forEach((row, r) => {
      if (row.label !== "" && (r % every === 0 && r + every <= rows.length - 1 || r === rows.length - 1 || r === 0)) {
        context.fillText(row.label, left - 5, top + (r + 0.5) * each);
      }
    });
    context.textAlign = "center";
    context.textBaseline = "top";
    const most = Math.max(2, Math.floor(width / 60));
    const unit = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000].find(
      (u) => model.positions / u <= most) || model.positions;
    for (let position = 0; position < model.positions; position += unit) {
      context.fillText(number(position), Math.min(this.x(position) + 1, left + width - 12), bottom + 4);
      context.fillRect(this.x(position), bottom, 1, 3);
    }
    context.strokeStyle = cssColour("--line");
    context.strokeRect(left - 0.5, top - 0.5, width + 1, height + 1);
    // The border between prompt and answer.
    context.strokeStyle = cssColour("--ink");
    context.setLineDash([3, 3]);
    context.beginPath();
    context.moveTo(this.x(data.prompt_tokens), top - 6);
    context.lineTo(this.x(data.prompt_tokens), bottom);
    context.stroke();
    context.setLineDash([]);
    // Events.
    context.fillStyle = cssColour("--event");
    data.events.forEach((length, i) => {
      context.globalAlpha = i + 1 === now().event ? 1 : 0.4;
      const x = this.x(length), size = i + 1 === now().event ? 5 : 3;
      context.beginPath();
      context.moveTo(x - size, top - 1 - 2 * size);
      context.lineTo(x + size, top - 1 - 2 * size);
      context.lineTo(x, top - 1);
      context.fill();
    });
    context.globalAlpha = 1;
    // What is protected: the window, and the sinks.
    const bar = (begin, end, colour) => {
      context.fillStyle = cssColour(colour);
      context.fillRect(this.x(begin), bottom, Math.max(2, this.x(end) - this.x(begin)), 2.5);
    };
    const length = Math.min(now().length, model.fed);
    bar(Math.max(0, length - config.window), length, "--window");
    if (sinks > 0) bar(0, Math.min(sinks, length), "--sink");
    // What is selected.
    context.strokeStyle = cssColour("--event");
    context.lineWidth = 1.5;
    rows.forEach((row, r) => {
      if (row.chosen) context.strokeRect(left - 1, top + r * each - 0.5, width + 2, each + 1);
    });
    context.lineWidth = 1;
  }

  overlay() {
    if (this.base.width === 0 || this.current === undefined) return;
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.drawImage(this.base, 0, 0);
    if (state.hover < 0) return;
    const dpr = window.devicePixelRatio || 1;
    context.setTransform(dpr, 0, 0, dpr, 0, 0);
    context.strokeStyle = cssColour("--hover");
    const cell = Math.max(2, this.width / model.positions);
    context.strokeRect(this.x(state.hover) - 0.5, this.top - 0.5, cell + 1, this.height + 1);
  }
}

const toToken = ({position}) => {
  if (position >= 0) spans[position].scrollIntoView({block: "center", behavior: "smooth"});
};
const layerMap = new PositionMap(byId("layers"), 340, () => {
  const time = now(), length = Math.min(time.length, model.fed);
  return Array.from({length: model.layers}, (_, layer) => ({
    counts: model.counts({layer, head: state.head}, time),
    of: model.pairs({layer, head: state.head}),
    length,
    label: String(layer),
    chosen: layer === state.layer,
  }));
}, toToken);
const headMap = new PositionMap(byId("heads"), 160, () => {
  const time = now(), length = Math.min(time.length, model.fed);
  return Array.from({length: model.heads}, (_, head) => ({
    counts: model.counts({layer: state.layer, head}, time),
    of: 1,
    length,
    label: String(head),
    chosen: head === state.head,
  }));
}, toToken);
let overTime = {key: "", rows: []};
const timeMap = new PositionMap(byId("times"), 220, () => {
  const key = state.layer + " " + state.head;
  if (overTime.key !== key) overTime = {key, rows: model.countsOverTime(selection())};
  return model.times.map((time, i) => ({
    counts: overTime.rows[i],
    of: model.pairs(selection()),
    length: Math.min(time.length, model.fed),
    label: i === model.times.length - 1 ? "now" : i === 0 ? "full" : String(time.event),
    chosen: i === state.time,
  }));
}, ({row}) => {
  if (row >= 0) setTime(row);
});
const maps = [layerMap, headMap, timeMap];

// --- Words and figures ---

function nameOfMoment(index) {
  const time = model.times[index];
  if (index === model.times.length - 1) return "now: after " + plural(time.length, "token");
  if (time.event === 0) return "full, before compaction 1 (" + plural(time.length, "token") + ")";
  return "after compaction " + time.event + " of " + data.events.length + " (" + plural(time.length, "token") + ")";
}

// "held by 17 of 90 heads (19 %)", in words that fit what is selected.
function describeHolders(held) {
  const pairs = model.pairs(selection()), of = held + " of " + pairs, share = " (" + percent(held / pairs) + ")";
  if (state.layer < 0) return "held by " + of + (state.head < 0 ? " heads" : " layers, in KV head " + state.head) + share;
  if (state.head < 0) return "held by " + of + " KV heads of layer " + state.layer + share;
  return (held === 1 ? "held by" : "let go of by") + " KV head " + state.head + " of layer " + state.layer;
}

function drawSummary(counts) {
  const pairs = model.pairs(selection()), length = Math.min(now().length, model.fed);
  let held = 0, all = 0, none = 0;
  for (let position = 0; position < length; ++position) {
    held += counts[position];
    all += counts[position] === pairs;
    none += counts[position] === 0;
  }
  const share = length > 0 ? held / (pairs * length) : 0;
  const tiles = [
    [percent(share), "of the tokens so far in a KV head: " + number(held / pairs) + " of " + number(length)],
    [number(all), pairs === 1 ? "tokens held" : "tokens held everywhere"],
    [number(none), pairs === 1 ? "tokens let go of" : "tokens held nowhere any more"],
    [now().event + " of " + data.events.length, "compactions so far"],
    [number(length - held / pairs), "evictions of each head so far, on average"],
  ];
  const counters = data.counters;
  if (counters.peak_kv_bytes > 0) {
    tiles.push([counters.compression_ratio.toFixed(1) + "\u00d7", "less KV cache at its largest: " +
                bytes(counters.peak_kv_bytes) + " for " + bytes(counters.full_cache_kv_bytes)]);
  }
  byId("summary").replaceChildren(...tiles.map(([figure, words]) => {
    const tile = element("div");
    tile.append(element("b", "", figure), element("span", "", words));
    return tile;
  }));
}

function drawHeader() {
  const parts = data.model.replace(/\/+$/, "").split("/"), run = byId("run");
  const name = parts[parts.length - 1];
  document.title = "cairn inspect: " + name;
  const method = config.algorithm + (config.schedule === "uniform" ? "" : " + " + config.schedule);
  const low = Math.min(...data.budgets), high = Math.max(...data.budgets);
  const facts = [
    "budget " + config.budget + (low < high ? " (" + low + " to " + high + ")" : ""),
    "buffer " + config.buffer, "window " + config.window,
    ...(config.recent_ratio > 0 ? [100 * config.recent_ratio + " % for the last tokens"] : []), "one kept set for each " + config.scope,
    model.layers + " layers \u00d7 " + plural(model.heads, "KV head"), "finish reason: " + data.finish_reason,
  ];
  run.append(element("b", "", name), " under ", element("b", "", method), " \u00b7 " + facts.join(" \u00b7 "));
}

// --- The tooltip ---

function fillTip(position) {
  const time = now(), tip = byId("tip"), quote = element("q", "", visible(data.texts[position]).replaceAll("\n", "\u21b5"));
  const lines = [];
  const line = (text) => lines.push(element("p", "", text));
  if (data.texts[position] === "") quote.textContent = "(part of a character)";
  line("position " + position + " \u00b7 id " + data.ids[position] + " \u00b7 " +
       (position < data.prompt_tokens ? "prompt" : "answer"));
  if (position >= model.fed) {
    line("the last token: sampled, never in the cache");
  } else if (position >= time.length) {
    line("not yet generated at this moment");
  } else {
    line(describeHolders(model.held(position, selection(), time)));
    const [first, last] = model.eventsThatTook(position, selection(), time);
    if (first > 0) line(first === last ? "evicted at compaction " + first : "evicted at compactions " + first + " to " + last);
    if (position >= time.length - config.window) line("in the window: always kept");
    if (position < sinks) line("a sink: always kept");
  }
  tip.replaceChildren(quote, ...lines);
  if (position < Math.min(time.length, model.fed)) tip.append(element("p", "", "heads that hold it, by layer:"), countsGrid(position, time));
}

function countsGrid(position, time) {
  const columns = model.layers > 60 ? 15 : 10, grid = element("div", "counts");
  grid.style.gridTemplateColumns = "auto repeat(" + Math.min(columns, model.layers) + ", 1fr)";
  model.headsByLayer(position, time).forEach((held, layer) => {
    if (layer % columns === 0) grid.append(element("u", "", layer));
    const cell = element("i", layer === state.layer || layer === state.hoverLayer ? "chosen" : "", held);
    const colour = colourOf(held / model.heads);
    cell.style.background = colour.css;
    cell.style.color = held === 0 ? "var(--gone)" : colour.ink;
    grid.append(cell);
  });
  return grid;
}

// `e`: where the pointer is; `layer`: of the map under it, or -1.
function hover(position, e, layer = -1) {
  const tip = byId("tip");
  if (state.hover >= 0 && state.hover !== position) spans[state.hover].classList.remove("hover");
  const moved = state.hover !== position || state.hoverLayer !== layer;
  state.hover = position;
  state.hoverLayer = layer;
  tip.hidden = position < 0;
  if (moved) maps.forEach((map) => map.overlay());
  if (position < 0) return;
  spans[position].classList.add("hover");
  if (moved) fillTip(position);
  const box = tip.getBoundingClientRect(), gap = 14;
  const x = e.clientX + gap + box.width < window.innerWidth ? e.clientX + gap : e.clientX - gap - box.width;
  const y = e.clientY + gap + box.height < window.innerHeight ? e.clientY + gap : e.clientY - gap - box.height;
  tip.style.left = Math.max(4, x) + "px";
  tip.style.top = Math.max(4, y) + "px";
}

// --- The state and its controls ---

function draw() {
  const counts = model.counts(selection(), now());
  byId("time").value = state.time;
  byId("moment").textContent = nameOfMoment(state.time);
  byId("layers-caption").textContent = "Layers (down) \u00d7 positions (across): " +
    (state.head < 0 ? "share of the KV heads" : "KV head " + state.head);
  byId("heads-figure").hidden = state.layer < 0;
  byId("heads-caption").textContent = "KV heads of layer " + state.layer;
  byId("times-figure").hidden = data.events.length === 0;
  paintTokens(counts);
  drawSummary(counts);
  maps.forEach((map) => map.draw());
}

let pending = 0;
function drawSoon() {
  if (pending === 0) pending = requestAnimationFrame(() => { pending = 0; draw(); });
}

function setTime(time) {
  state.time = Math.max(0, Math.min(model.times.length - 1, time));
  drawSoon();
}

let player = 0;
function play() {
  if (player !== 0) {
    clearInterval(player);
    player = 0;
  } else {
    if (state.time === model.times.length - 1) setTime(0);
    player = setInterval(() => {
      if (state.time === model.times.length - 1) play();
      else setTime(state.time + 1);
    }, Math.max(60, Math.min(700, 12000 / model.times.length)));
  }
  byId("play").textContent = player === 0 ? "Play" : "Pause";
}

function connect() {
  for (const [id, count, all] of [["layer", model.layers, "all"], ["head", model.heads, "all"]]) {
    const select = byId(id);
    select.append(new Option(all, -1), ...Array.from({length: count}, (_, i) => new Option(i, i)));
    select.addEventListener("change", () => { state[id] = Number(select.value); drawSoon(); });
  }
  byId("time").max = model.times.length - 1;
  byId("time").addEventListener("input", (e) => setTime(Number(e.target.value)));
  byId("back").addEventListener("click", () => setTime(state.time - 1));
  byId("forward").addEventListener("click", () => setTime(state.time + 1));
  byId("play").addEventListener("click", play);
  document.addEventListener("keydown", (e) => {
    if (e.target.closest("input, select, button") || e.ctrlKey || e.metaKey || e.altKey) return;
    if (e.key === "ArrowLeft") setTime(state.time - 1);
    else if (e.key === "ArrowRight") setTime(state.time + 1);
    else if (e.key === " ") play();
    else return;
    e.preventDefault();
  });
  const text = byId("text");
  text.addEventListener("pointermove", (e) => {
    const span = e.target.closest("[data-position]");
    hover(span === null ? -1 : Number(span.dataset.position), e);
  });
  text.addEventListener("pointerleave", () => hover(-1));
  text.addEventListener("click", (e) => {
    const border = e.target.closest("[data-event]");
    if (border !== null) setTime(Number(border.dataset.event));
  });
  const measure = () => document.documentElement.style.setProperty("--controls", byId("controls").offsetHeight + "px");
  window.addEventListener("resize", () => { measure(); drawSoon(); });
  measure();
  darkTheme.addEventListener("change", () => { makePalette(); drawLegend(); drawSoon(); });
}

makePalette();
drawHeader();
drawLegend();
layOutTokens();
connect();
draw();
})();
