// The horizontal axis: virtual time, or one event after the other. Both count from 0, and both can be looked up in
// sorted arrays: that is why a million events cost no more to draw than a thousand.

const NARROWEST = { time: 20, event: 8 };

class Axis {
  constructor(run) {
    this.run = run;
    this.mode = "time";
    this.listeners = [];
    this.from = 0;
    this.to = this.whole;
  }

  get whole() { return Math.max(this.mode === "time" ? this.run.end : this.run.length, NARROWEST[this.mode]); }

  get switches() { return this.mode === "time" ? this.run.switchAt : this.run.switchEvent; }

  /** Where an event is. */
  position(event) { return this.mode === "time" ? this.run.at[event] : event + 0.5; }

  /** The first event at or behind a position. */
  eventFrom(position) {
    if (this.mode === "time") return lowerBound(this.run.at, position);
    return Math.min(Math.max(Math.ceil(position - 0.5), 0), this.run.length);
  }

  x(position, width) { return (position - this.from) / (this.to - this.from) * width; }

  positionAt(x, width) { return this.from + x / width * (this.to - this.from); }

  show(from, to) {
    const size = Math.min(Math.max(to - from, NARROWEST[this.mode]), this.whole);
    const middle = (from + to) / 2;
    this.from = Math.min(Math.max(middle - size / 2, 0), this.whole - size);
    this.to = this.from + size;
    for (const listener of this.listeners) listener();
  }

  zoom(factor, around = (this.from + this.to) / 2) {
    const size = Math.min(Math.max((this.to - this.from) * factor, NARROWEST[this.mode]), this.whole);
    const share = (around - this.from) / (this.to - this.from);
    this.show(around - share * size, around - share * size + size);
  }

  move(share) {
    const by = share * (this.to - this.from);
    this.show(this.from + by, this.to + by);
  }

  all() { this.show(0, this.whole); }

  /** Have an event in view. */
  reveal(event) {
    const position = this.position(event);
    if (position < this.from || position > this.to) {
      const half = (this.to - this.from) / 2;
      this.show(position - half, position + half);
    }
  }

  /** The same stretch of the run on the other axis. */
  setMode(mode) {
    if (mode === this.mode) return;
    const first = this.eventFrom(this.from), last = Math.max(this.eventFrom(this.to) - 1, first);
    const isAll = this.from <= 0 && this.to >= this.whole;
    this.mode = mode;
    if (isAll || first >= this.run.length) this.all();
    else this.show(mode === "time" ? this.run.at[first] : first, mode === "time" ? this.run.at[last] : last + 1);
  }

  get text() {
    if (this.mode === "event") {
      const first = Math.floor(this.from) + 1, last = Math.min(Math.ceil(this.to), this.run.length);
      return `events ${commas(first)} to ${commas(last)}`;
    }
    const milliseconds = 1000 * (this.to - this.from) / this.run.cyclesPerSecond;
    return `cycles ${commas(this.from)} to ${commas(this.to)} (${milliseconds.toPrecision(3)} ms)`;
  }

  /** Round positions in view, some `count` of them. */
  ticks(count) {
    const rough = (this.to - this.from) / count, power = 10 ** Math.floor(Math.log10(rough));
    const step = Math.max([1, 2, 5, 10].find((each) => each * power >= rough) * power, 1);
    const found = [];
    for (let tick = Math.ceil(this.from / step) * step; tick <= this.to; tick += step) found.push(tick);
    return found;
  }
}

/** A canvas with as many points as the screen has there; `draw(context, width, height)` in CSS pixels. */
class Plot {
  constructor(canvas, draw) {
    this.canvas = canvas;
    this.draw = draw;
    new ResizeObserver(() => this.update()).observe(canvas);
  }

  update() {
    const { canvas } = this, scale = window.devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
    if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
    const context = canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    this.draw(context, width, height);
  }
}

const colours = new Map();

function colour(name) {
  if (!colours.has(name)) colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  return colours.get(name);
}

const GUESTS = ["guest", "guest2", "guest3", "guest4"];

function laneColour(lane) {
  return colour(lane === 0 ? "host" : lane === 1 ? "hypervisor" : GUESTS[(lane - 2) % GUESTS.length]);
}
