// Who has the processor: a bar for each world, and below it the marks of its events.
//
// For each lane the stretches that it has the processor for are kept with the sum of all before them. How much of any
// pixel is a lane's is then the difference of two sums, however many stretches it is made of.

const LANE_HEIGHT = 46, BAR = 22, MARKS = 14, TICKS = 20, NEAR = 4, THINNEST = 2;
const MARK_CLASSES = [
  { name: "conflicts and moves", colour: "conflict", kinds: ["Conflict", "Relocated"] },
  { name: "ends", colour: "mark", kinds: ["GuestHalted", "Shutdown"] },
  { name: "host functions", colour: "host", kinds: ["HostFunction"] },
  { name: "page tables", colour: "guest", kinds: ["PageTableWrite", "NoConflict", "GuestMappings"] },
  { name: "exceptions", colour: "hypervisor", kinds: ["ExceptionTaken"] },
  { name: "switches", colour: "quiet", kinds: null }, // and whatever isn't named above
];

class Stretches {
  constructor(starts, lanes, count, end) {
    const sizes = new Uint32Array(count);
    for (const lane of lanes) sizes[lane]++;
    this.starts = Array.from(sizes, (size) => new Float64Array(size));
    this.before = Array.from(sizes, (size) => new Float64Array(size + 1));
    const next = new Uint32Array(count);
    for (let i = 0; i < lanes.length; i++) {
      const lane = lanes[i], at = next[lane]++;
      const until = i + 1 < lanes.length ? starts[i + 1] : end;
      this.starts[lane][at] = starts[i];
      this.before[lane][at + 1] = this.before[lane][at] + until - starts[i];
    }
  }

  /** How much of [0, position) a lane has. */
  sum(lane, position) {
    const starts = this.starts[lane], before = this.before[lane];
    const at = lowerBound(starts, position) - 1;
    return at < 0 ? 0 : before[at] + Math.min(position - starts[at], before[at + 1] - before[at]);
  }
}

class LanesView {
  constructor(run, axis, canvas, names) {
    this.run = run;
    this.axis = axis;
    const count = run.lanes.length;
    this.stretches = {
      time: new Stretches(run.switchAt, run.switchLane, count, run.end),
      event: new Stretches(run.switchEvent, run.switchLane, count, run.length),
    };
    this.marks = this._marks(count);
    this.selected = -1;
    canvas.style.height = `${count * LANE_HEIGHT + TICKS}px`;
    run.lanes.forEach((name, lane) => {
      const label = document.createElement("div");
      label.textContent = name;
      label.dataset.lane = lane;
      label.style.top = `${lane * LANE_HEIGHT + 8}px`;
      label.style.color = laneColour(lane);
      names.append(label);
    });
    this.plot = new Plot(canvas, (context, width, height) => this._draw(context, width, height));
  }

  /** For each lane and class of marks the numbers of the events, in order. */
  _marks(count) {
    const { run } = this, other = MARK_CLASSES.length - 1;
    const classOf = run.kinds.map((kind) => {
      const found = MARK_CLASSES.findIndex((each) => each.kinds?.includes(kind.name));
      return found < 0 ? other : found;
    });
    const classes = MARK_CLASSES.length, sizes = new Uint32Array(count * classes);
    for (let i = 0; i < run.length; i++) sizes[run.who[i] * classes + classOf[run.kind[i]]]++;
    const lists = Array.from(sizes, (size) => new Uint32Array(size)), next = new Uint32Array(lists.length);
    for (let i = 0; i < run.length; i++) {
      const list = run.who[i] * classes + classOf[run.kind[i]];
      lists[list][next[list]++] = i;
    }
    this.classOf = classOf;
    return Array.from({ length: count }, (_, lane) => lists.slice(lane * classes, (lane + 1) * classes));
  }

  _draw(context, width, height) {
    for (let lane = 0; lane < this.run.lanes.length; lane++) {
      this._drawBar(context, lane, width);
      this._drawMarks(context, lane, width);
    }
    this._drawTicks(context, width, height);
    if (this.selected >= 0) {
      const x = this.axis.x(this.axis.position(this.selected), width);
      context.fillStyle = colour("mark");
      context.fillRect(x - 0.5, 0, 1, height - TICKS);
    }
  }

  _drawBar(context, lane, width) {
    const stretches = this.stretches[this.axis.mode], top = lane * LANE_HEIGHT + 4;
    const pixel = (this.axis.to - this.axis.from) / width;
    context.fillStyle = laneColour(lane);
    let before = stretches.sum(lane, this.axis.from), begin = 0, tall = 0;
    for (let x = 0; x < width; x++) {
      const after = stretches.sum(lane, this.axis.positionAt(x + 1, width));
      const share = Math.min((after - before) / pixel, 1);
      const now = share > 1e-9 ? Math.max(Math.round(share * BAR), THINNEST) : 0;
      if (now !== tall) {
        if (tall) context.fillRect(begin, top + BAR - tall, x - begin, tall);
        begin = x;
        tall = now;
      }
      before = after;
    }
    if (tall) context.fillRect(begin, top + BAR - tall, width - begin, tall);
  }

  _drawMarks(context, lane, width) {
    const top = lane * LANE_HEIGHT + 4 + BAR + 2;
    const first = this.axis.eventFrom(this.axis.from), end = this.axis.eventFrom(this.axis.to);
    if (this.axis.mode === "event" && width / (this.axis.to - this.axis.from) > 24) {
      this._drawBoxes(context, lane, width, first, end, top);
      return;
    }
    // From the commonest to the rarest: those lie on top.
    for (let at = MARK_CLASSES.length - 1; at >= 0; at--) {
      const list = this.marks[lane][at];
      let next = lowerBound(list, first);
      const last = lowerBound(list, end);
      context.fillStyle = colour(MARK_CLASSES[at].colour);
      while (next < last) {
        const x = Math.floor(this.axis.x(this.axis.position(list[next]), width));
        context.fillRect(x, top, 1, MARKS);
        next = lowerBound(list, this.axis.eventFrom(this.axis.positionAt(x + 1, width)), next + 1, last);
      }
    }
  }

  _drawBoxes(context, lane, width, first, end, top) {
    const size = width / (this.axis.to - this.axis.from);
    context.font = "10px system-ui, sans-serif";
    context.textBaseline = "middle";
    for (let event = Math.max(first - 1, 0); event < Math.min(end + 1, this.run.length); event++) {
      if (this.run.who[event] !== lane) continue;
      const x = this.axis.x(event, width);
      context.fillStyle = colour(MARK_CLASSES[this.classOf[this.run.kind[event]]].colour);
      context.fillRect(x + 1, top, size - 2, MARKS);
      context.save();
      context.beginPath();
      context.rect(x + 2, top, size - 4, MARKS);
      context.clip();
      context.fillStyle = colour("back");
      context.fillText(this.run.value(event, "setting") ?? this.run.name(event), x + 3, top + MARKS / 2);
      context.restore();
    }
  }

  _drawTicks(context, width, height) {
    context.fillStyle = colour("quiet");
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "alphabetic";
    for (const tick of this.axis.ticks(Math.max(width / 130, 2))) {
      const x = this.axis.x(tick, width);
      context.globalAlpha = 0.25;
      context.fillRect(x, 0, 1, height - TICKS);
      context.globalAlpha = 1;
      context.fillText(commas(tick), x + 3, height - 6);
    }
  }

  /** What is at a point: the lane, whether it has the processor there, and the event of it that is nearest. */
  at(x, y, width) {
    const lane = Math.floor(y / LANE_HEIGHT);
    if (lane < 0 || lane >= this.run.lanes.length) return null;
    const position = this.axis.positionAt(x, width), starts = this.axis.switches;
    const number = Math.max(lowerBound(starts, position + 1e-9) - 1, 0);
    const holder = this.run.switchLane[number];
    const end = this.axis.mode === "time" ? this.run.end : this.run.length;
    return {
      lane, position, holder,
      from: starts[number], to: number + 1 < starts.length ? starts[number + 1] : end,
      event: this._nearest(lane, x, width),
      near: this._near(lane, x, width),
    };
  }

  _nearest(lane, x, width) {
    let best = -1, distance = NEAR;
    const at = this.axis.eventFrom(this.axis.positionAt(x, width));
    this.marks[lane].forEach((list) => {
      const place = lowerBound(list, at);
      for (const event of [list[place - 1], list[place]]) {
        if (event === undefined) continue;
        const away = Math.abs(this.axis.x(this.axis.position(event), width) - x);
        if (away < distance) { best = event; distance = away; }
      }
    });
    return best;
  }

  /** How many events of each kind are as near as that. */
  _near(lane, x, width) {
    const first = this.axis.eventFrom(this.axis.positionAt(x - NEAR, width));
    const end = this.axis.eventFrom(this.axis.positionAt(x + NEAR, width));
    return this.marks[lane]
      .map((list, at) => [MARK_CLASSES[at].name, lowerBound(list, end) - lowerBound(list, first)])
      .filter(([, number]) => number);
  }
}
