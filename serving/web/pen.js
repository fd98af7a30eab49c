// Moves the pen.

// A numeric keypad without Num Lock sends the diagonal keys.
const STEPS = {
  ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
  Home: [-1, -1], PageUp: [1, -1], End: [-1, 1], PageDown: [1, 1],
};
const STEP = 1 / 20;

// `width` returns the width of the pen.
export function drawWithPointer(canvas, sheet, width) {
  let active = null; // id of the pointer that draws; others are ignored

  function point(event) {
    const { left, top, width: side } = canvas.getBoundingClientRect();
    return [(event.clientX - left) / side, (event.clientY - top) / side];
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (active !== null || event.button !== 0) return;
    active = event.pointerId;
    canvas.setPointerCapture(active);
    sheet.begin(point(event), width());
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerId !== active) return;
    const events = event.getCoalescedEvents?.() ?? [];
    sheet.extend((events.length ? events : [event]).map(point));
  });
  for (const [type, finish] of [["pointerup", "end"], ["pointercancel", "cancel"]]) {
    canvas.addEventListener(type, (event) => {
      if (event.pointerId !== active) return;
      active = null;
      sheet[finish]();
    });
  }
}

// `marker` is the element that shows where the pen is. `toggled` is told whether it is down.
export function drawWithKeys(canvas, sheet, width, marker, toggled) {
  let at = [0.5, 0.25];
  let down = false;

  function show() {
    marker.style.left = `${100 * at[0]}%`;
    marker.style.top = `${100 * at[1]}%`;
    marker.classList.toggle("down", down);
  }

  function lift() {
    if (!down) return;
    down = false;
    sheet.end();
    show();
    toggled(false);
  }

  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = STEPS[event.key];
    if (step) {
      const length = event.shiftKey ? STEP / 4 : STEP;
      at = at.map((value, axis) => Math.min(1, Math.max(0, value + length * step[axis])));
      if (down) sheet.extend([at]);
    } else if (event.key === " ") {
      if (down) lift();
      else {
        down = true;
        sheet.begin(at, width());
        toggled(true);
      }
    } else if (event.key === "Escape") {
      lift();
    } else {
      return;
    }
    event.preventDefault();
    canvas.classList.add("keys");
    show();
  });
  for (const type of ["blur", "pointerdown"]) {
    canvas.addEventListener(type, () => {
      lift();
      canvas.classList.remove("keys");
    });
  }
  sheet.addEventListener("replace", () => {
    down = false;
    show();
  });
  show();
}
