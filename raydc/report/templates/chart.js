// Draws the report's charts from the JSON next to them (raydc/report/chart_data.py describes its format).
//
// Hover or tap to see a point, click the legend to show or hide a series, drag to zoom, Reset zoom to undo. On the
// keyboard the arrow keys move from point to point, + and - zoom at the point, and Escape resets. Without
// scripts the page shows the figures in <noscript>, which "Save SVG" saves for papers.
"use strict";

(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const NEAR = 28; // distance in pixels within which a point is found
  const DRAG = 8; // distance in pixels from which a movement is a drag
  const MARKERS = {
    o: "m-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0z",
    s: "m-3.5,-3.5h7v7h-7z",
    D: "m0,-5l5,5l-5,5l-5,-5z",
    "^": "m0,-5l4.5,8.5h-9z",
    v: "m0,5l4.5,-8.5h-9z",
    P: "m-1.5,-4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z",
    X: "m0,-2l2.5,-2.5l2,2l-2.5,2.5l2.5,2.5l-2,2l-2.5,-2.5l-2.5,2.5l-2,-2l2.5,-2.5l-2.5,-2.5l2,-2z",
    "*": "m0,-5l1.2,3.4h3.6l-2.9,2.1l1.1,3.5l-3,-2.1l-3,2.1l1.1,-3.5l-2.9,-2.1h3.6z",
  };
  const VIRIDIS = ["440154", "472d7b", "3b528b", "2c728e", "21918c", "28ae80", "5ec962", "addc30", "fde725"];

  // --- numbers and elements ----------------------------------------------------------------------
  const short = (value, digits = 4) => String(Number(value.toPrecision(digits)));
  const FORMATS = {
    number: short,
    percent: (value, digits = 3) => `${short(100 * value, digits)} %`,
    bytes: (value, digits = 3) => {
      const unit = Math.min(3, Math.max(0, Math.floor(Math.log10(value) / 3 + 1e-9)));
      return `${short(value / 1000 ** unit, digits)} ${["B", "kB", "MB", "GB"][unit]}`;
    },
  };

  function add(element, parent, attributes = {}, text = null) {
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== null) element.textContent = text;
    return parent.appendChild(element);
  }
  const make = (parent, name, ...rest) => add(document.createElementNS(SVG, name), parent, ...rest);
  const html = (parent, name, ...rest) => add(document.createElement(name), parent, ...rest);

  // --- an axis: values to pixels and back ----------------------------------------------------------
  class Axis {
    constructor(spec, [low, high], from, to) {
      Object.assign(this, { spec, from, to });
      this.ends = [this.bend(low), this.bend(high)];
    }
    bend(value) {
      return this.spec.log ? Math.log10(value) : value;
    }
    at(value) {
      const [low, high] = this.ends;
      return this.from + ((this.bend(value) - low) / (high - low)) * (this.to - this.from);
    }
    back(pixel) {
      const [low, high] = this.ends;
      const bent = low + ((pixel - this.from) / (this.to - this.from)) * (high - low);
      return this.spec.log ? 10 ** bent : bent;
    }
    // (pixel, text) of each tick.
    ticks() {
      const [low, high] = [this.from, this.to].map((pixel) => this.back(pixel));
      const inside = (values) => values.filter((value) => value >= low && value <= high);
      const { places, log, format } = this.spec;
      const round = log ? steps(this.ends, 1).flatMap((d) => [1, 2, 5].map((n) => n * 10 ** d)) : [];
      const given = log || places.length <= 12 ? places : [];
      const shown = [given, round].map(inside).find((values) => values.length > 1) ?? inside(steps([low, high]));
      return shown.map((value) => [this.at(value), FORMATS[format](value, 6)]);
    }
  }

  // About six round numbers around [low, high], or every multiple of `step`.
  function steps([low, high], step = null) {
    if (step === null) {
      const rough = (high - low) / 6;
      const power = 10 ** Math.floor(Math.log10(rough));
      step = power * [1, 2, 5, 10].find((n) => n * power >= rough);
    }
    const first = Math.floor(low / step);
    return Array.from({ length: Math.ceil(high / step) - first + 1 }, (_, n) => (first + n) * step);
  }

  function extent(values, log) {
    const bent = values.filter((v) => v !== null && (!log || v > 0)).map((v) => (log ? Math.log10(v) : v));
    const [low, high] = [Math.min, Math.max].map((of) => bent.reduce((a, b) => of(a, b)));
    const room = 0.05 * (high - low) || 0.05 * Math.abs(high) || 1;
    return [low - room, high + room].map((v) => (log ? 10 ** v : v));
  }

  // --- shared by all charts: the SVG element, its size, the tooltip, the keyboard ----------------------
  class Chart {
    constructor(figure, data) {
      Object.assign(this, { data, figure, hits: [], chosen: -1, width: 0 });
      this.box = figure.querySelector(".chart");
      const label = `${data.title}: ${data.y.label} over ${data.x.label}; use the arrow keys to read the points`;
      this.svg = make(this.box, "svg", { tabindex: 0, role: "img", "aria-label": label });
      this.tip = html(this.box, "div", { class: "tip", role: "status", hidden: "" });
      this.tools = html(figure, "div", { class: "tools" });
      html(this.tools, "button", { type: "button" }, "Save SVG").addEventListener("click", () => this.save());
      this.svg.addEventListener("pointermove", (event) => this.moved(...this.place(event)));
      this.svg.addEventListener("pointerleave", () => this.choose(-1));
      this.svg.addEventListener("blur", () => this.choose(-1));
      this.svg.addEventListener("keydown", (event) => this.pressed(event));
      new ResizeObserver(() => this.box.clientWidth !== this.width && this.draw()).observe(this.box);
    }
    place(event) {
      const { left, top } = this.svg.getBoundingClientRect();
      return [event.clientX - left, event.clientY - top];
    }
    sized(height) {
      this.width = this.box.clientWidth;
      this.height = height;
      this.svg.replaceChildren();
      this.svg.setAttribute("viewBox", `0 0 ${this.width} ${height}`);
      this.svg.setAttribute("height", height);
      this.chosen = -1;
      this.tip.hidden = true;
    }
    moved(...place) {
      this.choose(this.find(...place));
    }
    pressed(event) {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") this.choose(-1);
      else if (step && this.hits.length) {
        const from = this.chosen < 0 && step < 0 ? 0 : this.chosen;
        this.choose((from + step + this.hits.length) % this.hits.length);
      } else return;
      event.preventDefault();
    }
    choose(index) {
      this.chosen = index;
      this.tip.hidden = index < 0;
      this.ring?.remove();
      if (index < 0) return;
      const hit = this.hits[index];
      this.ring = this.mark(hit);
      const [title, ...rest] = this.tipLines(hit);
      this.tip.replaceChildren();
      html(this.tip, "b", {}, title);
      for (const line of rest) html(this.tip, "div", {}, line);
      const left = hit.x + 14 + this.tip.offsetWidth > this.width ? hit.x - 14 - this.tip.offsetWidth : hit.x + 14;
      this.tip.style.left = `${Math.max(0, left)}px`;
      this.tip.style.top = `${Math.max(0, Math.min(hit.y - 10, this.height - this.tip.offsetHeight))}px`;
    }
    // The axis label and tick labels; tick labels that would overlap are left out.
    labelled(axis, name, at, places) {
      let free = -Infinity;
      for (const [pixel, text] of places) {
        const half = 3.6 * text.length + 3;
        if (axis === "x" && (pixel - half < free || pixel + half > this.width)) continue;
        free = pixel + half;
        if (axis === "x") make(this.svg, "text", { x: pixel, y: at + 17, class: "middle" }, text);
        else make(this.svg, "text", { x: at - 7, y: pixel + 4, class: "end" }, text);
      }
      const middle = (places[0][0] + places[places.length - 1][0]) / 2;
      if (axis === "x") make(this.svg, "text", { x: middle, y: at + 37, class: "middle name" }, name);
      else make(this.svg, "text", { transform: `translate(13 ${middle}) rotate(-90)`, class: "middle name" }, name);
    }
    save() {
      const still = this.figure.querySelector("noscript").textContent;
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([still], { type: "image/svg+xml" }));
      link.download = `${this.data.title.replace(/[^A-Za-z0-9.]+/g, "-")}.svg`;
      link.click();
      URL.revokeObjectURL(link.href);
    }
  }

  // --- points, lines and bands over two axes ---------------------------------------------------------
  const lineClass = (series) => (series.wide ? "line wide" : "line");
  const pointsClass = (series) => (series.hollow ? "points hollow" : "points");

  class Plot extends Chart {
    constructor(figure, data) {
      super(figure, data);
      this.hidden = new Set();
      this.reset = html(this.tools, "button", { type: "button", hidden: "" }, "Reset zoom");
      this.reset.addEventListener("click", () => this.zoom(null));
      this.svg.addEventListener("dblclick", () => this.zoom(null));
      this.svg.addEventListener("pointerdown", (event) => this.grabbed(event));
      this.svg.addEventListener("pointerup", (event) => this.dropped(event));
      this.svg.addEventListener("pointercancel", () => this.released());
      if (data.series.length > 1) this.legend();
      this.zoom(null);
    }
    legend() {
      const legend = html(this.figure, "div", { class: "legend", role: "group", "aria-label": "series" });
      this.box.after(legend);
      for (const series of this.data.series) {
        const button = html(legend, "button", { type: "button", "aria-pressed": "true" });
        const key = make(button, "svg", { width: 22, height: 12, "aria-hidden": "true" });
        this.styled(key, series);
        if (series.line) make(key, "path", { class: lineClass(series), d: "M0,6h22" });
        if (series.marker) make(key, "path", { class: pointsClass(series), d: `M11,6${MARKERS[series.marker]}` });
        html(button, "span", {}, series.label);
        button.addEventListener("click", () => {
          const shown = this.hidden.delete(series);
          if (!shown) this.hidden.add(series);
          button.setAttribute("aria-pressed", String(shown));
          this.zoom(this.ranges);
        });
      }
    }
    styled(element, series) {
      element.style.setProperty("--light", series.light);
      element.style.setProperty("--dark", series.dark);
      element.classList.add("series");
    }
    zoom(ranges) {
      this.ranges = ranges;
      this.reset.hidden = ranges === null;
      this.draw();
    }
    draw() {
      this.sized(Math.round(Math.max(260, Math.min(440, 0.62 * this.box.clientWidth))));
      const seen = this.data.series.filter((series) => !this.hidden.has(series));
      const parts = (seen.length ? seen : this.data.series).flatMap((s) => [s.points, s.line, s.band]);
      const all = parts.filter((part) => part);
      const { x, y } = this.data;
      const [xs, ys] = this.ranges ?? [
        extent(all.flatMap((part) => part.x), x.log),
        extent(all.flatMap((p) => [p.y, ...(p.bars === false ? [] : [p.low, p.high])].flatMap((c) => c ?? [])), y.log),
      ];
      this.plot = { left: 62, right: this.width - 10, top: 8, bottom: this.height - 46 };
      this.x = new Axis(x, xs, this.plot.left, this.plot.right);
      this.y = new Axis({ places: [], ...y }, ys, this.plot.bottom, this.plot.top);
      this.frame();
      this.hits = [];
      for (const series of seen) this.series(series);
      this.svg.dataset.points = this.hits.length;
    }
    frame() {
      const { left, right, top, bottom } = this.plot;
      const [across, up] = [this.x, this.y].map((axis) => axis.ticks());
      const grid = [...across.map(([p]) => `M${p},${top}V${bottom}`), ...up.map(([p]) => `M${left},${p}H${right}`)];
      make(this.svg, "path", { class: "grid-lines", d: grid.join("") });
      make(this.svg, "path", { class: "axis", d: `M${left},${top}V${bottom}H${right}` });
      this.labelled("x", this.data.x.label, bottom, across);
      this.labelled("y", this.data.y.label, left, up);
      const [width, height] = [right - left, bottom - top];
      const box = { x: left, y: top, width, height, viewBox: `${left} ${top} ${width} ${height}` };
      this.layer = make(this.svg, "svg", box); // clips everything outside
    }
    series(series) {
      const group = make(this.layer, "g");
      this.styled(group, series);
      const place = (x, y) => `${this.x.at(x).toFixed(1)},${this.y.at(y).toFixed(1)}`;
      const path = (xs, ys) => xs.flatMap((x, i) => (ys[i] === null ? [] : [place(x, ys[i])]));
      const { points, line, band } = series;
      if (band) {
        const edge = [...path(band.x, band.low), ...path(band.x, band.high).reverse()];
        make(group, "path", { class: "band", d: `M${edge.join("L")}z` });
      }
      if (line) make(group, "path", { class: lineClass(series), d: `M${path(line.x, line.y).join("L")}` });
      if (!points) return;
      const places = points.x.map((x) => x * (points.apart ?? 1));
      if (points.low && points.bars !== false) {
        const bar = (x, low, high) => (low === null ? "" : `M${place(x, low)}L${place(x, high)}`);
        const bars = places.map((x, i) => bar(x, points.low[i], points.high[i]));
        make(group, "path", { class: "bars", d: bars.join("") });
      }
      const marks = path(places, points.y).map((at) => `M${at}${MARKERS[series.marker]}`);
      make(group, "path", { class: pointsClass(series), d: marks.join("") });
      const { left, right, top, bottom } = this.plot;
      places.forEach((value, i) => {
        const [x, y] = [this.x.at(value), this.y.at(points.y[i])];
        if (x >= left && x <= right && y >= top && y <= bottom) this.hits.push({ x, y, series, i });
      });
    }
    tipLines({ series, i }) {
      const { x, y, low, high, count, note } = series.points;
      const [over, value] = [FORMATS[this.data.x.format], FORMATS[this.data.y.format]];
      const ends = low && low[i] !== null ? ` [${value(low[i])}, ${value(high[i])}]` : "";
      return [
        series.label,
        `${this.data.x.label}: ${over(x[i])}`,
        `${this.data.y.label}: ${value(y[i])}${ends}`,
        ...(count ? [`${count[i]} replicate${count[i] === 1 ? "" : "s"}`] : []),
        ...(note && note[i] ? [note[i]] : []),
      ];
    }
    mark(hit) {
      return make(this.layer, "circle", { class: "ring", cx: hit.x, cy: hit.y, r: 8 });
    }
    find(x, y) {
      let best = -1, least = NEAR ** 2;
      this.hits.forEach((hit, index) => {
        const far = (hit.x - x) ** 2 + (hit.y - y) ** 2;
        if (far < least) [best, least] = [index, far];
      });
      return best;
    }
    // Touch zooms along x only, because vertical movement scrolls the page.
    grabbed(event) {
      if (event.button !== 0) return;
      this.start = this.place(event);
      this.flat = event.pointerType === "touch";
      this.svg.setPointerCapture(event.pointerId);
      this.choose(this.find(...this.start));
    }
    area([x, y]) {
      const { left, right, top, bottom } = this.plot;
      const between = (a, b, low, high) => [Math.max(low, Math.min(a, b)), Math.min(high, Math.max(a, b))];
      const flat = this.flat || Math.abs(y - this.start[1]) < DRAG;
      const steep = Math.abs(x - this.start[0]) < DRAG;
      return {
        xs: steep ? [left, right] : between(x, this.start[0], left, right),
        ys: flat ? [top, bottom] : between(y, this.start[1], top, bottom),
        none: flat && steep,
      };
    }
    moved(x, y) {
      if (!this.start) return super.moved(x, y);
      const { xs, ys, none } = this.area([x, y]);
      this.dragged?.remove();
      const size = { width: xs[1] - xs[0], height: ys[1] - ys[0] };
      if (!none) this.dragged = make(this.layer, "rect", { class: "drag", x: xs[0], y: ys[0], ...size });
    }
    dropped(event) {
      if (!this.start) return;
      const { xs, ys, none } = this.area(this.place(event));
      this.released();
      if (!none) this.zoom([xs.map((p) => this.x.back(p)), [ys[1], ys[0]].map((p) => this.y.back(p))]);
    }
    released() {
      this.start = null;
      this.dragged?.remove();
    }
    pressed(event) {
      const factor = { "+": 0.5, "-": 2 }[event.key];
      if (event.key === "Escape" && this.ranges) this.zoom(null);
      else if (factor) {
        const { left, right, top, bottom } = this.plot;
        const { x, y } = this.hits[this.chosen] ?? { x: (left + right) / 2, y: (top + bottom) / 2 };
        const near = (axis, centre, ends) => ends.map((end) => axis.back(centre + factor * (end - centre)));
        this.zoom([near(this.x, x, [left, right]), near(this.y, y, [bottom, top])]);
      } else return super.pressed(event);
      event.preventDefault();
    }
  }

  // --- heat maps -------------------------------------------------------------------------------------
  function ramp(part) {
    const place = part * (VIRIDIS.length - 1);
    const index = Math.min(VIRIDIS.length - 2, Math.floor(place));
    const parts = (hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16));
    const [a, b] = [parts(VIRIDIS[index]), parts(VIRIDIS[index + 1])];
    return `rgb(${a.map((v, i) => Math.round(v + (place - index) * (b[i] - v))).join(",")})`;
  }

  class Heat extends Chart {
    constructor(figure, data) {
      super(figure, data);
      this.draw();
    }
    draw() {
      const { x, y, values } = this.data;
      const known = values.flat().filter((value) => value !== null);
      const [low, high] = [Math.min(...known), Math.max(...known)];
      const left = 34 + 7 * Math.max(...y.names.map((name) => name.length));
      const wide = (this.box.clientWidth - left - 4) / x.names.length;
      const tall = Math.max(20, Math.min(36, wide));
      this.sized(Math.round(tall * y.names.length + 54));
      this.hits = [];
      const bottom = this.height - 46;
      values.forEach((row, r) => row.forEach((value, c) => {
        if (value === null) return;
        const part = high > low ? (value - low) / (high - low) : 0.5;
        const hit = { x: left + (c + 0.5) * wide, y: bottom - (r + 0.5) * tall, r, c, wide, tall };
        const cell = { x: hit.x - wide / 2, y: hit.y - tall / 2, width: wide, height: tall };
        make(this.svg, "rect", { ...cell, fill: ramp(part) });
        this.hits.push(hit);
        if (wide < 30) return;
        const look = { class: "middle cell", fill: part < 0.55 ? "#fff" : "#000" };
        make(this.svg, "text", { x: hit.x, y: hit.y + 4, ...look }, (100 * value).toFixed(1));
      }));
      this.labelled("x", x.label, bottom, x.names.map((name, c) => [left + (c + 0.5) * wide, name]));
      this.labelled("y", y.label, left, y.names.map((name, r) => [bottom - (r + 0.5) * tall, name]));
      this.svg.dataset.points = this.hits.length;
    }
    tipLines({ r, c }) {
      const { x, y, values } = this.data;
      return [FORMATS.percent(values[r][c], 4), `${x.label}: ${x.names[c]}`, `${y.label}: ${y.names[r]}`];
    }
    mark({ x, y, wide, tall }) {
      return make(this.svg, "rect", { class: "ring", x: x - wide / 2, y: y - tall / 2, width: wide, height: tall });
    }
    find(x, y) {
      return this.hits.findIndex((hit) => Math.abs(hit.x - x) <= hit.wide / 2 && Math.abs(hit.y - y) <= hit.tall / 2);
    }
  }

  for (const figure of document.querySelectorAll("figure.drawn")) {
    const data = JSON.parse(figure.querySelector("script").textContent);
    if (data.kind === "heat") new Heat(figure, data);
    else new Plot(figure, data);
  }
})();
