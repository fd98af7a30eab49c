// The hand: mouse, pen, finger, and the keys for whoever has none of them.

// The keypad without its lock gives the slanted ones.
const STEPS = {
  ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
  Home: [-1, -1], PageUp: [1, -1], End: [-1, 1], PageDown: [1, 1],
};
const STEP = 1 / 20;

export function pointer(canvas, sheet, width) {
  let hand = null; // the pointer that draws; others have to wait

  function point(event) {
    const { left, top, width: side } = canvas.getBoundingClientRect();
    return [(event.clientX - left) / side, (event.clientY - top) / side];
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (hand !== null || event.button !== 0) return;
    hand = event.pointerId;
    canvas.setPointerCapture(hand);
    sheet.begin(point(event), width());
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerId !== hand) return;
    const events = event.getCoalescedEvents?.() ?? [];
    sheet.extend((events.length ? events : [event]).map(point));
  });
  canvas.addEventListener("pointerup", (event) => {
    if (event.pointerId !== hand) return;
    hand = null;
    sheet.end();
  });
  canvas.addEventListener("pointercancel", (event) => {
    if (event.pointerId !== hand) return;
    hand = null;
    sheet.cancel();
  });
}

// `mark` shows where the pen is; `say` tells whether it writes.
export function keys(canvas, sheet, width, mark, say) {
  let at = [0.5, 0.25];
  let down = false;

  function show() {
    mark.style.left = `${100 * at[0]}%`;
    mark.style.top = `${100 * at[1]}%`;
    mark.classList.toggle("down", down);
  }

  function lift() {
    if (!down) return;
    down = false;
    sheet.end();
    show();
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
      }
      say(down ? "Pen down" : "Pen up");
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
