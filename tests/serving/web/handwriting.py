"""Strokes of handwritten digits, and drawing them on the page with a mouse or a finger."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np


def curve(points):
    """Return a smooth line through the points (Catmull and Rom, 1974)."""
    at = np.array([points[0], *points, points[-1]], float)
    t = np.linspace(0, 1, 4, endpoint=False)[:, None]
    parts = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(at, at[1:], at[2:], at[3:], strict=False)
    ]
    return np.concatenate([*parts, at[-1:]])


def line(points):
    """Return straight lines from point to point."""
    return np.concatenate([np.linspace(a, b, 5) for a, b in itertools.pairwise(points)])


def ring(ellipse):
    """Return an ellipse, drawn counterclockwise from the angle ``start``, once around and a little further."""
    (x, y), (width, height) = ellipse["centre"], ellipse["radii"]
    angle = ellipse["start"] - np.linspace(0, 2 * np.pi + 0.15, 18)
    return np.stack([x + width * np.cos(angle), y + height * np.sin(angle)], axis=1)


FOLDER = Path(__file__).parent
SHAPES = {"curve": curve, "line": line, "ring": ring}


def read_styles():
    """Return the styles in which each digit is written: ``{digit: [style, ...]}``.

    A style is a list of strokes. A stroke is an array of points ``[N, 2]`` on the unit square, joined from the
    shapes in strokes.json.
    """
    digits = json.loads((FOLDER / "strokes.json").read_text())
    return {int(digit): [strokes_of(style) for style in styles] for digit, styles in digits.items()}


def read_shapes():
    """Return shapes that are easy to misread: ``{name: (label, style)}``. The label is None if it is no digit."""
    shapes = json.loads((FOLDER / "shapes.json").read_text())
    return {name: (shape["label"], strokes_of(shape["strokes"])) for name, shape in shapes.items()}


def strokes_of(style):
    return [np.concatenate([SHAPES[kind](shape[kind]) for shape in stroke for kind in shape]) for stroke in style]


STYLES = read_styles()
ONE, TWO, THREE, FIVE, EIGHT = STYLES[1][0], STYLES[2][0], STYLES[3][0], STYLES[5][1], STYLES[8][0]


def vary(style, random):
    """Return the strokes with a random size, place, slant, angle and tremor, as another person may write them."""
    turn, slant = random.normal(0, 0.07), random.normal(0.06, 0.1)
    size = random.uniform(0.6, 1.05, 2) * random.uniform(0.85, 1.05)
    size = np.clip(size, size.max() * 0.75, None)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = rotation @ [[1, -slant], [0, 1]] @ np.diag(size)
    shift = 0.5 + random.uniform(-0.12, 0.12, 2)
    return [
        np.clip((stroke + random.normal(0, 0.003, stroke.shape) - 0.5) @ matrix.T + shift, 0.02, 0.98)
        for stroke in style
    ]


def on_screen(page, strokes):
    """Return the strokes in pixels of the window."""
    page.evaluate("scrollTo(0, 0)")
    box = page.locator("#sheet").bounding_box()
    return [np.asarray(stroke) * box["width"] + [box["x"], box["y"]] for stroke in strokes]


def draw(page, strokes):
    """Draw with the mouse."""
    for stroke in on_screen(page, strokes):
        page.mouse.move(*stroke[0])
        page.mouse.down()
        for point in stroke[1:]:
            page.mouse.move(*point)
        page.mouse.up()


# A stroke as the browser reports it: a press, moves, and a release.
EVENTS = """(sheet, strokes) => {
    sheet.setPointerCapture = () => {};
    const { left, top, width } = sheet.getBoundingClientRect();
    const send = (type, [x, y]) => sheet.dispatchEvent(new PointerEvent(`pointer${type}`, {
        bubbles: true, pointerId: 1, clientX: left + x * width, clientY: top + y * width }));
    for (const stroke of strokes) {
        send("down", stroke[0]);
        for (const point of stroke.slice(1)) send("move", point);
        send("up", stroke.at(-1));
    }
    delete sheet.setPointerCapture;
}"""


def draw_at_once(page, strokes):
    """Draw with events that a script sends, which takes one call to the browser."""
    page.locator("#sheet").evaluate(EVENTS, [np.asarray(stroke).tolist() for stroke in strokes])


def fragment_of(strokes, width):
    """Return the part of the page's address that draws the strokes, as serving/web/link.js writes it."""
    return "#d=" + "-".join(
        "".join(np.base_repr(round(number * (36**2 - 1)), 36).lower().zfill(2) for number in [width, *stroke.ravel()])
        for stroke in strokes
    )


def send_touch(session, kind, *points):
    """Send the touch event ``kind`` (Start, Move or End) with one finger at each of the points."""
    touches = [{"x": float(x), "y": float(y), "id": finger} for finger, (x, y) in enumerate(points)]
    session.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": touches})


def draw_with_finger(page, strokes):
    session = page.context.new_cdp_session(page)
    for stroke in on_screen(page, strokes):
        send_touch(session, "Start", stroke[0])
        for point in stroke[1:]:
            send_touch(session, "Move", point)
        send_touch(session, "End")


def draw_with_stylus(page, strokes):
    session = page.context.new_cdp_session(page)

    def send(kind, x, y):
        event = {"type": f"mouse{kind}", "x": x, "y": y, "pointerType": "pen"}
        session.send("Input.dispatchMouseEvent", event | {"button": "left", "buttons": 1, "clickCount": 1})

    for stroke in on_screen(page, strokes):
        send("Pressed", *stroke[0])
        for point in stroke[1:]:
            send("Moved", *point)
        send("Released", *stroke[-1])
