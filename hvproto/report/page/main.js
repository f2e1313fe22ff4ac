// The page comes to life: one axis for both plots, the pointer, the keyboard, and the tables that follow.

const KEYS = {
  "+": "in", "=": "in", "-": "out", "0": "all", n: "next", p: "previous", t: "by-time", e: "by-event",
};
const DRAGGED = 3; // pixels: less is a click

function start(run) {
  const find = (id) => document.getElementById(id);
  const axis = new Axis(run);
  const lanes = new LanesView(run, axis, find("lanes"), find("lane-names"));
  const space = new SpaceView(run, axis, find("space"), find("space-names"));
  const one = new EventTables(run), view = new ViewTables(run, axis, lanes.stretches);
  let selected = -1, waiting = 0, later = 0;

  function redraw() {
    if (waiting) return;
    waiting = requestAnimationFrame(() => {
      waiting = 0;
      lanes.plot.update();
      space.plot.update();
      find("range").textContent = axis.text;
    });
    clearTimeout(later);
    later = setTimeout(() => view.update(), 60); // sums over a million events are not for every step of a wheel
  }

  function select(event, isShown = true) {
    if (!(event >= 0 && event < run.length)) return;
    selected = lanes.selected = space.selected = event;
    if (isShown) axis.reveal(event);
    one.show(event);
    redraw();
  }

  function setMode(mode) {
    axis.setMode(mode);
    find("by-time").setAttribute("aria-pressed", mode === "time");
    find("by-event").setAttribute("aria-pressed", mode === "event");
    if (selected >= 0) axis.reveal(selected);
    redraw();
  }

  function laneTip(x, y, width) {
    const found = lanes.at(x, y, width);
    if (!found) return null;
    const unit = axis.mode === "time" ? "cycle" : "event";
    const lines = [];
    if (found.event >= 0) {
      const event = found.event;
      lines.push(`event ${commas(event + 1)}: ${run.name(event)}, cycle ${commas(run.at[event])}`);
      lines.push(run.fields(event).map(([name, text]) => `${name} ${text}`).join(", "));
      const total = found.near.reduce((sum, [, number]) => sum + number, 0);
      if (total > 1) lines.push(`around here: ${found.near.map(([name, number]) => `${commas(number)} ${name}`).join(", ")}`);
    }
    const holder = run.lanes[found.holder];
    lines.push(`${holder} has the processor from ${unit} ${commas(found.from)} to ${commas(found.to)}`);
    return { text: lines.join("\n"), event: found.event };
  }

  function showTip(pointer, text) {
    const tip = find("tip");
    tip.hidden = !text;
    tip.textContent = text ?? "";
    const right = Math.max(window.innerWidth - tip.offsetWidth - 8, 0);
    tip.style.left = `${Math.min(pointer.clientX + 14, right)}px`;
    const below = pointer.clientY + 18;
    tip.style.top = `${below + tip.offsetHeight > window.innerHeight ? pointer.clientY - tip.offsetHeight - 10 : below}px`;
  }

  function listen(canvas, tipAt, onWheel) {
    let held = null;
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const box = canvas.getBoundingClientRect();
      const factor = Math.exp(Math.max(Math.min(event.deltaY || event.deltaX, 300), -300) / 400);
      if (onWheel(event, factor, (event.clientY - box.top) / box.height)) return;
      axis.zoom(factor, axis.positionAt(event.clientX - box.left, box.width));
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      held = { x: event.clientX, from: axis.from, to: axis.to, isMoved: false };
    });
    canvas.addEventListener("pointermove", (event) => {
      const box = canvas.getBoundingClientRect();
      if (held && Math.abs(event.clientX - held.x) > DRAGGED) held.isMoved = true;
      if (held?.isMoved) {
        const by = (held.x - event.clientX) / box.width * (held.to - held.from);
        axis.show(held.from + by, held.to + by);
        showTip(event, null);
      } else {
        showTip(event, tipAt(event.clientX - box.left, event.clientY - box.top, box)?.text);
      }
    });
    canvas.addEventListener("pointerup", (event) => {
      const box = canvas.getBoundingClientRect();
      if (held && !held.isMoved) {
        const found = tipAt(event.clientX - box.left, event.clientY - box.top, box);
        if (found && found.event >= 0) select(found.event, false);
      }
      held = null;
    });
    canvas.addEventListener("pointerleave", (event) => showTip(event, null));
  }

  function findNext() {
    const events = run.kinds[find("find-kind").value]?.events;
    if (!events?.length) return;
    select(events[lowerBound(events, selected + 1)] ?? events[0]);
  }

  find("events").textContent = commas(run.length);
  find("cycles").textContent = commas(run.end);
  find("relocations").textContent = commas(run.eventsOf("Relocated").length);
  find("conflicts-count").textContent = commas(run.eventsOf("Conflict").length);
  if (run.eventsOf("GuestEntered").length) {
    find("note").textContent = "From a guest's entry to its next exit, the time has the host's interrupts in it, and the way by the host's kernel.";
  }
  find("legend").append("Marks: ", ...MARK_CLASSES.flatMap((each) => {
    const swatch = document.createElement("i");
    swatch.className = "swatch";
    swatch.style.background = colour(each.colour);
    return [swatch, each.name];
  }), ". The hypervisor is Python, which takes no virtual time: its bar is its code in the region; event by event shows its steps.");
  if (!space.space) {
    find("space-note").textContent = ". No guest has a mirror here: under this plan there is no region to move.";
  }
  const chooser = find("space-guest");
  chooser.hidden = space.spaces.size < 2;
  for (const guest of space.spaces.keys()) chooser.add(new Option(run.lanes[2 + guest], guest));
  run.kinds.forEach((kind, number) => find("find-kind").add(new Option(`${kind.name} (${commas(kind.rows)})`, number)));

  const actions = {
    in: () => axis.zoom(0.5),
    out: () => axis.zoom(2),
    all: () => axis.all(),
    next: () => select(selected + 1),
    previous: () => select(selected - 1),
    find: findNext,
    "by-time": () => setMode("time"),
    "by-event": () => setMode("event"),
    "next-switch": () => select(one.switches[one.switchAt(Math.max(selected, 0)) + 1]),
    "previous-switch": () => select(one.switches[one.switchAt(Math.max(selected, 0)) - 1]),
    compressed: () => setScale(true),
    "to-scale": () => setScale(false),
  };

  function setScale(isCompressed) {
    space.isCompressed = isCompressed;
    find("compressed").setAttribute("aria-pressed", isCompressed);
    find("to-scale").setAttribute("aria-pressed", !isCompressed);
    space.all();
    redraw();
  }

  for (const [id, action] of Object.entries(actions)) find(id).addEventListener("click", action);
  chooser.addEventListener("change", () => { space.guest = Number(chooser.value); redraw(); });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
    if (event.key === "ArrowLeft") axis.move(-0.25);
    else if (event.key === "ArrowRight") axis.move(0.25);
    else if (KEYS[event.key]) actions[KEYS[event.key]]();
    else return;
    event.preventDefault();
  });
  document.addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-event]");
    if (row) select(Number(row.dataset.event));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { colours.clear(); redraw(); });
  axis.listeners.push(redraw);
  listen(find("lanes"), (x, y, box) => laneTip(x, y, box.width), () => false);
  listen(find("space"), (x, y, box) => ({ text: space.at(x, y, box.width, box.height), event: -1 }), (event, factor, share) => {
    if (!event.shiftKey) return false;
    space.zoom(factor, 1 - share);
    return true;
  });
  view.update();
  if (run.length) select(run.eventsOf("Decoupled")[0] ?? 0, false);
  document.body.dataset.ready = "yes";
}

unpack(document.getElementById("data").textContent).then((buffer) => start(new Run(buffer)));
