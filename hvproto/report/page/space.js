// The guest's linear address space over time: what it maps, as far as it has been looked at, and the region.
//
// "Compressed", an axis of 2^32 or 2^48 bytes is cut at every address where a mapping or the region ever ends; each piece
// is as tall as the logarithm of its pages, so that six pages can be seen among millions.

const MOST_EDGES = 4000, PAGES_48 = 2 ** 36;

function pageOf(address) { return Number((BigInt(address) >> 12n) & 0xfffffffffn); }

function addressOf(page, pages) {
  const address = BigInt(Math.floor(page)) << 12n;
  const isUpper = pages === PAGES_48 && page >= PAGES_48 / 2;
  return "0x" + (isUpper ? address | 0xffff000000000000n : address).toString(16).padStart(8, "0");
}

/** What is known of one guest: looks at its mappings, places of the region, conflicts; each with its event. */
class Space {
  constructor() {
    this.looks = [];
    this.places = [];
    this.conflicts = [];
    this.pages = 1;
  }

  place(event, page, pages) {
    if (this.places.at(-1)?.page !== page || this.places.at(-1).pages !== pages) this.places.push({ event, page, pages });
  }

  finish() {
    const edges = new Set([0, this.pages]);
    for (const { page, pages } of this.places) edges.add(page).add(page + pages);
    const others = new Set();
    for (const { runs } of this.looks) for (const [first, pages] of runs) others.add(first).add(first + pages);
    const sorted = Float64Array.from(others).sort(), every = Math.ceil(sorted.length / MOST_EDGES);
    sorted.forEach((edge, i) => { if (i % every === 0) edges.add(edge); });
    this.edges = Float64Array.from(edges).sort();
    this.heights = new Float64Array(this.edges.length);
    for (let i = 1; i < this.edges.length; i++) {
      this.heights[i] = this.heights[i - 1] + Math.log2(1 + this.edges[i] - this.edges[i - 1]);
    }
    const top = this.heights.at(-1) || 1;
    for (let i = 0; i < this.heights.length; i++) this.heights[i] /= top;
    for (const list of ["looks", "places", "conflicts"]) {
      this[list].events = Float64Array.from(this[list], (each) => each.event);
    }
    return this;
  }

  /** Where a page is, from 0 (lowest) to 1. */
  height(page, isCompressed) {
    if (!isCompressed) return page / this.pages;
    const at = Math.min(Math.max(lowerBound(this.edges, page), 1), this.edges.length - 1);
    const share = (page - this.edges[at - 1]) / (this.edges[at] - this.edges[at - 1]);
    return this.heights[at - 1] + share * (this.heights[at] - this.heights[at - 1]);
  }

  pageAt(height, isCompressed) {
    if (!isCompressed) return Math.min(height * this.pages, this.pages - 1);
    const at = Math.min(Math.max(lowerBound(this.heights, height), 1), this.heights.length - 1);
    const share = (height - this.heights[at - 1]) / (this.heights[at] - this.heights[at - 1]);
    return Math.min(this.edges[at - 1] + share * (this.edges[at] - this.edges[at - 1]), this.pages - 1);
  }

  /** The last entry of a list that isn't behind an event. */
  last(list, event) { return this[list][lowerBound(this[list].events, event + 1) - 1]; }
}

function spacesOf(run) {
  const spaces = new Map(), decoupled = run.eventsOf("Decoupled");
  const guest = run.field("Decoupled", "guest");
  const spaceOf = (event) => {
    const at = lowerBound(decoupled, event) - 1;
    const number = at < 0 ? 0 : guest.values[guest.codes[at]];
    if (!spaces.has(number)) spaces.set(number, new Space());
    return spaces.get(number);
  };
  for (const event of run.eventsOf("GuestMappings")) {
    const space = spaceOf(event), runs = run.value(event, "runs");
    space.looks.push({ event, runs: runs.map(([address, pages]) => [address / 4096, pages]) });
    space.pages = Math.max(space.pages, run.value(event, "end") / 4096);
    space.place(event, pageOf(run.value(event, "region")), run.value(event, "pages"));
  }
  for (const event of run.eventsOf("Relocated")) {
    spaceOf(event).places.push({ event, page: pageOf(run.value(event, "new")), pages: run.value(event, "pages") });
  }
  for (const event of run.eventsOf("Conflict")) {
    spaceOf(event).conflicts.push({ event, page: pageOf(run.value(event, "address")) });
  }
  for (const space of spaces.values()) space.places.sort((one, other) => one.event - other.event);
  return new Map([...spaces].sort(([one], [other]) => one - other).map(([number, space]) => [number, space.finish()]));
}

class SpaceView {
  constructor(run, axis, canvas, names) {
    this.run = run;
    this.axis = axis;
    this.names = names;
    this.spaces = spacesOf(run);
    this.guest = this.spaces.keys().next().value;
    this.isCompressed = true;
    this.selected = -1;
    this.all();
    this.plot = new Plot(canvas, (context, width, height) => this._draw(context, width, height));
  }

  get space() { return this.spaces.get(this.guest); }

  all() {
    this.from = 0;
    this.to = 1;
  }

  zoom(factor, share) {
    const size = Math.min(Math.max((this.to - this.from) * factor, 1e-9), 1);
    const around = this.from + share * (this.to - this.from);
    this.from = Math.min(Math.max(around - share * size, 0), 1 - size);
    this.to = this.from + size;
    this.plot.update();
  }

  _y(page, height) {
    return height - (this.space.height(page, this.isCompressed) - this.from) / (this.to - this.from) * height;
  }

  _pageAt(y, height) {
    return this.space.pageAt(this.from + (1 - y / height) * (this.to - this.from), this.isCompressed);
  }

  _draw(context, width, height) {
    this.names.replaceChildren();
    if (!this.space) return;
    this._drawMapped(context, width, height);
    this._drawRegion(context, width, height);
    this._drawConflicts(context, width, height);
    for (let y = 14; y < height; y += 36) {
      const label = document.createElement("div");
      label.textContent = addressOf(this._pageAt(y, height), this.space.pages);
      label.style.top = `${y - 8}px`;
      this.names.append(label);
    }
    if (this.selected >= 0) {
      context.fillStyle = colour("mark");
      context.fillRect(this.axis.x(this.axis.position(this.selected), width) - 0.5, 0, 1, height);
    }
  }

  /** Calls `draw(entry, x, until)` for those in view. Of several within a pixel the last: it is what holds from there. */
  _inView(list, width, draw) {
    const { axis } = this, entries = this.space[list];
    const first = axis.eventFrom(axis.from), end = axis.eventFrom(axis.to);
    const xOf = (at) => (at < entries.length ? axis.x(axis.position(entries[at].event), width) : width);
    let at = Math.max(lowerBound(entries.events, first) - 1, 0);
    while (at < entries.length && entries[at].event < end) {
      const x = xOf(at);
      const beyond = lowerBound(entries.events, axis.eventFrom(axis.positionAt(Math.floor(x) + 1, width)), at + 1);
      draw(entries[beyond - 1], Math.max(x, 0), Math.min(Math.max(xOf(beyond), x + 1), width));
      at = beyond;
    }
  }

  _drawMapped(context, width, height) {
    context.fillStyle = colour("mapped");
    this._inView("looks", width, ({ runs }, x, until) => {
      for (const [first, pages] of runs) {
        const top = this._y(first + pages, height), bottom = this._y(first, height);
        if (bottom >= 0 && top <= height) context.fillRect(x, top, until - x, Math.max(bottom - top, 0.5));
      }
    });
  }

  _drawRegion(context, width, height) {
    context.fillStyle = colour("region");
    this._inView("places", width, ({ page, pages }, x, until) => {
      const top = this._y(page + pages, height), bottom = this._y(page, height);
      const tall = Math.max(bottom - top, 4);
      context.fillRect(x, (top + bottom - tall) / 2, Math.max(until - x, 2), tall);
    });
  }

  _drawConflicts(context, width, height) {
    context.fillStyle = colour("conflict");
    this._inView("conflicts", width, ({ event, page }, _x, _until) => {
      const x = this.axis.x(this.axis.position(event), width);
      context.fillRect(x - 2.5, this._y(page + 0.5, height) - 2.5, 5, 5);
    });
  }

  /** What is at a point, for the tip. */
  at(x, y, width, height) {
    const { space, axis } = this;
    if (!space) return "";
    const event = axis.eventFrom(axis.positionAt(x, width)) - 1, page = Math.floor(this._pageAt(y, height));
    const place = space.last("places", event), look = space.last("looks", event);
    if (!place) return "the guest has not been entered yet";
    const end = place.page + place.pages - 1;
    const isMapped = look?.runs.some(([first, pages]) => first <= page && page < first + pages);
    const isRegion = place.page <= page && page <= end;
    return [
      `${addressOf(page, space.pages)}: ${isRegion ? "the region" : isMapped ? "mapped by the guest" : "free"}`,
      `the region: ${addressOf(place.page, space.pages)}, ${place.pages} pages, since event ${commas(place.event + 1)}`,
      look ? `the guest's mappings as of event ${commas(look.event + 1)}` : "",
    ].join("\n");
  }
}
