// The tables: one event in full, the settings at a switch, and sums over what is in view.

const SETTING_KINDS = new Set(["SettingSaved", "SettingReplaced", "SettingRestored"]);
const MOST_ROWS = 200;

function fill(table, rows, { code = [], numbers = [] } = {}) {
  const body = document.querySelector(`#${table} tbody`);
  body.replaceChildren(...rows.map(({ cells, event }) => {
    const row = document.createElement("tr");
    if (event !== undefined) row.dataset.event = event;
    cells.forEach((text, column) => {
      const cell = document.createElement("td");
      cell.textContent = text;
      if (code.includes(column)) cell.className = "code";
      if (numbers.includes(column)) cell.className = "number";
      row.append(cell);
    });
    return row;
  }));
}

class EventTables {
  constructor(run) {
    this.run = run;
    const both = [...run.eventsOf("Decoupled"), ...run.eventsOf("Recoupled")];
    this.switches = Uint32Array.from(both).sort();
  }

  show(event) {
    const { run } = this;
    document.getElementById("event-number").textContent = `${commas(event + 1)}: ${run.name(event)}`;
    const step = run.kinds[run.kind[event]].step;
    const rows = [["cycle", commas(run.at[event])], ["lane", run.lanes[run.who[event]]], ...run.fields(event)];
    if (step !== null) rows.unshift(["step", String(step)]);
    fill("event", rows.map((cells) => ({ cells })), { code: [1] });
    this._showSettings(event);
  }

  /** The number, among the switches, of the one that an event is part of, or else of the last one before it. */
  switchAt(event) {
    if (SETTING_KINDS.has(this.run.name(event))) return lowerBound(this.switches, event);
    return Math.max(lowerBound(this.switches, event + 1) - 1, 0);
  }

  _showSettings(event) {
    const { run } = this, number = this.switchAt(event), at = this.switches[number];
    const title = document.getElementById("switch-title"), head = document.querySelector("#settings thead");
    head.replaceChildren();
    if (at === undefined) {
      title.textContent = "no switch";
      fill("settings", [{ cells: ["The host is never decoupled here."] }]);
      return;
    }
    let first = at;
    while (first > 0 && SETTING_KINDS.has(run.name(first - 1))) first--;
    const isOut = run.name(at) === "Decoupled";
    const heads = isOut ? ["id", "register", "the host's, saved", "at", "replaced by", "whose"]
      : ["register", "until now", "restored: the host's", "from"];
    head.innerHTML = `<tr>${heads.map((each) => `<th>${each}`).join("")}</tr>`;
    title.textContent = `switch ${commas(number + 1)} of ${commas(this.switches.length)}, cycle ${commas(run.at[at])}: `
      + (isOut ? "the host is decoupled" : `the host is recoupled for ${run.value(at, "reason")}`);
    const parts = [];
    for (let each = first; each < at; each++) parts.push(each);
    fill("settings", isOut ? this._decoupling(parts) : this._recoupling(parts), { code: [0, 1, 2, 3, 4] });
  }

  _decoupling(parts) {
    const { run } = this, replaced = new Map();
    for (const each of parts) if (run.name(each) === "SettingReplaced") replaced.set(run.value(each, "setting"), each);
    return parts.filter((each) => run.name(each) === "SettingSaved").map((event) => {
      const setting = run.value(event, "setting"), other = replaced.get(setting);
      return { event, cells: [
        run.value(event, "register_id"), setting, run.value(event, "value"), hex(run.value(event, "place")),
        other === undefined ? "-" : run.value(other, "new"), other === undefined ? "-" : `${run.value(other, "provider")}'s`,
      ] };
    });
  }

  _recoupling(parts) {
    const { run } = this;
    return parts.filter((each) => run.name(each) === "SettingRestored").map((event) => ({ event, cells: [
      run.value(event, "setting"), run.value(event, "old"), run.value(event, "new"), hex(run.value(event, "place")),
    ] }));
  }
}

/** Rows of a kind, sorted into groups once, so that those in view need only be counted. */
class Groups {
  constructor(events, keyOf, costOf) {
    this.events = events;
    this.keys = [];
    this.group = new Uint16Array(events.length);
    this.cost = new Float64Array(events.length);
    const numbers = new Map();
    for (let row = 0; row < events.length; row++) {
      const key = keyOf(row);
      if (!numbers.has(key)) {
        if (numbers.size >= 65535) continue;
        numbers.set(key, this.keys.length);
        this.keys.push(row);
      }
      this.group[row] = numbers.get(key);
      this.cost[row] = costOf(row);
    }
  }

  /** {row, number, cost} for each group that has events in [first, end), the most frequent first. */
  sums(first, end) {
    const numbers = new Uint32Array(this.keys.length), costs = new Float64Array(this.keys.length);
    const last = lowerBound(this.events, end);
    for (let row = lowerBound(this.events, first); row < last; row++) {
      numbers[this.group[row]]++;
      costs[this.group[row]] += this.cost[row];
    }
    return this.keys
      .map((row, group) => ({ row, number: numbers[group], cost: costs[group], group }))
      .filter(({ number }) => number)
      .sort((one, other) => other.number - one.number || one.row - other.row);
  }
}

class ViewTables {
  constructor(run, axis, stretches) {
    this.run = run;
    this.axis = axis;
    this.stretches = stretches;
    this._prepareExits();
    this._prepareRecouplings();
  }

  _prepareExits() {
    const { run } = this, events = run.eventsOf("ExceptionTaken");
    const of = (name) => run.field("ExceptionTaken", name);
    const [vector, route, detail, cycles] = ["vector", "route", "detail", "cycles"].map(of);
    const key = (row) => (detail.codes[row] * 256 + vector.values[vector.codes[row]]) * 8 + route.codes[row];
    this.exits = new Groups(events, key, (row) => cycles.values[cycles.codes[row]]);
    this.after = Float64Array.from(events, (event) => {
      let next = lowerBound(run.switchEvent, event + 1);
      while (next < run.switchLane.length && run.switchLane[next] < 2 && run.switchAt[next] <= run.at[event]) next++;
      if (run.switchLane[next] < 2 || run.switchAt[next] !== run.at[event]) return 0;
      return (next + 1 < run.switchAt.length ? run.switchAt[next + 1] : run.end) - run.switchAt[next];
    });
  }

  _exitName(row) {
    const event = this.exits.events[row], { run } = this;
    const vector = run.value(event, "vector"), detail = run.value(event, "detail");
    if (detail === "software interrupt") return `int ${hex(vector, 1)}`;
    if (detail === "interrupt") return `interrupt, vector ${hex(vector, 1)}`;
    const name = run.exceptions[vector] ?? `vector ${hex(vector, 1)}`;
    return detail && detail !== name ? `${name}: ${detail}` : name;
  }

  _prepareRecouplings() {
    const { run } = this, events = run.eventsOf("Recoupled"), decoupled = run.eventsOf("Decoupled");
    const reasons = run.field("Recoupled", "reason");
    this.reason = (row) => {
      const next = events[row] + 1, reason = reasons.values[reasons.codes[row]];
      const isFunction = next < run.length && run.name(next) === "HostFunction";
      return isFunction ? `${reason}: ${run.value(next, "name")}` : reason;
    };
    this.recouplings = new Groups(events, this.reason, (row) => {
      const back = decoupled[lowerBound(decoupled, events[row])];
      return (back === undefined ? run.end : run.at[back]) - run.at[events[row]];
    });
  }

  update() {
    const { axis } = this, first = axis.eventFrom(axis.from), end = axis.eventFrom(axis.to);
    this._showExits(first, end);
    fill("recouplings", this.recouplings.sums(first, end).slice(0, MOST_ROWS).map(({ row, number, cost }) => ({
      event: this.recouplings.events[row], cells: [this.reason(row), commas(number), commas(cost), commas(cost / number)],
    })), { numbers: [1, 2, 3] });
    this._showShares(first, end);
    this._showConflicts(first, end);
    document.getElementById("range").textContent = axis.text;
  }

  _showExits(first, end) {
    const { exits } = this, sums = exits.sums(first, end), then = new Float64Array(exits.keys.length);
    const last = lowerBound(exits.events, end);
    for (let row = lowerBound(exits.events, first); row < last; row++) then[exits.group[row]] += this.after[row];
    fill("exits", sums.slice(0, MOST_ROWS).map(({ row, number, cost, group }) => ({
      event: exits.events[row],
      cells: [this._exitName(row), this.run.value(exits.events[row], "route"), commas(number), commas(cost),
        then[group] ? commas(then[group] / number) : "-"],
    })), { numbers: [2, 3, 4] });
  }

  _showShares(first, end) {
    const { axis, run } = this;
    const inEvents = (event) => run.at[Math.min(event, run.length - 1)] ?? 0;
    const [from, to] = axis.mode === "time" ? [axis.from, axis.to] : [inEvents(first), inEvents(end)];
    fill("shares", run.lanes.map((name, lane) => {
      const cycles = this.stretches.time.sum(lane, to) - this.stretches.time.sum(lane, from);
      return { cells: [name, commas(cycles), to > from ? `${(100 * cycles / (to - from)).toFixed(2)} %` : "-"] };
    }), { numbers: [1, 2] });
  }

  _showConflicts(first, end) {
    const { run } = this, conflicts = run.eventsOf("Conflict"), moves = run.eventsOf("Relocated");
    const from = lowerBound(conflicts, first), to = lowerBound(conflicts, end);
    const shownOnes = Array.from(conflicts.subarray(from, Math.min(to, from + MOST_ROWS)));
    fill("conflicts", shownOnes.map((event) => {
      const move = moves[lowerBound(moves, event)];
      return { event, cells: [
        commas(event + 1), commas(run.at[event]), hex(run.value(event, "address")), hex(run.value(event, "region")),
        move === undefined ? "-" : hex(run.value(move, "new")), run.value(event, "cause"),
      ] };
    }), { code: [2, 3, 4], numbers: [0, 1] });
    const note = document.getElementById("conflicts-note");
    note.textContent = to - from > MOST_ROWS ? `... and ${commas(to - from - MOST_ROWS)} more: zoom in to see them.` : "";
  }
}
