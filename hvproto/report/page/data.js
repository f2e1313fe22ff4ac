// The run, as columns of numbers: what the page has in it, unpacked once.

const ADDRESSES = new Set(["address", "region", "old", "new", "gpa", "place", "host_eip", "eip", "cr2", "end"]);
const HEXADECIMAL = new Set([...ADDRESSES, "value", "error_code"]);
const ARRAYS = { float64: Float64Array, uint32: Uint32Array, uint16: Uint16Array, uint8: Uint8Array };

async function unpack(text) {
  const binary = atob(text), packed = new Uint8Array(binary.length);
  for (let i = 0; i < packed.length; i++) packed[i] = binary.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

function sumUp(differences) {
  let sum = 0;
  for (let i = 0; i < differences.length; i++) differences[i] = sum += differences[i];
  return differences;
}

/** The first index whose value is not less than `value`, in [low, high). */
function lowerBound(array, value, low = 0, high = array.length) {
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (array[middle] < value) low = middle + 1; else high = middle;
  }
  return low;
}

class Run {
  constructor(buffer) {
    const length = new DataView(buffer).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
    const column = (place) => new ARRAYS[place.type](buffer, 8 + length + place.offset, place.length);
    this.heading = header.heading;
    this.lanes = header.lanes;
    this.cyclesPerSecond = header.cyclesPerSecond;
    this.kinds = header.kinds;
    this.exceptions = header.exceptions;
    for (const kind of this.kinds) for (const field of kind.fields) field.codes = column(field);
    const own = header.columns;
    this.at = sumUp(column(own.at));
    this.who = column(own.who);
    this.kind = column(own.kind);
    this.switchAt = sumUp(column(own.switchAt));
    this.switchEvent = column(own.switchEvent);
    this.switchLane = column(own.switchLane);
    this.length = this.at.length;
    this.end = this.length ? this.at[this.length - 1] : 0;
    this._number();
  }

  /** For each event its row in its kind's table; for each kind the events. */
  _number() {
    this.row = new Uint32Array(this.length);
    for (const kind of this.kinds) kind.events = new Uint32Array(kind.rows);
    const next = new Uint32Array(this.kinds.length);
    for (let i = 0; i < this.length; i++) {
      const kind = this.kind[i], row = next[kind]++;
      this.row[i] = row;
      this.kinds[kind].events[row] = i;
    }
    this.byName = new Map(this.kinds.map((kind) => [kind.name, kind]));
  }

  eventsOf(name) { return this.byName.get(name)?.events ?? new Uint32Array(0); }

  name(event) { return this.kinds[this.kind[event]].name; }

  field(kind, name) { return this.byName.get(kind)?.fields.find((field) => field.name === name); }

  /** The value of one field of an event; undefined if its kind has no such field. */
  value(event, name) {
    const field = this.kinds[this.kind[event]].fields.find((each) => each.name === name);
    return field && field.values[field.codes[this.row[event]]];
  }

  /** [name, text] of every field of an event. */
  fields(event) {
    const kind = this.kinds[this.kind[event]];
    return kind.fields.map((field) => [field.name, shown(field.name, field.values[field.codes[this.row[event]]])]);
  }
}

function shown(name, value) {
  if (value === null) return "-";
  if (name === "runs") return `${value.length} runs, ${commas(value.reduce((sum, run) => sum + run[1], 0))} pages`;
  if (Array.isArray(value)) return value.join(" ");
  if (typeof value === "number") return HEXADECIMAL.has(name) ? hex(value, ADDRESSES.has(name) ? 8 : 1) : commas(value);
  return String(value);
}

function hex(value, digits = 8) {
  return typeof value === "string" ? value : "0x" + value.toString(16).padStart(digits, "0");
}

function commas(value) { return Math.round(value).toLocaleString("en-GB"); }
