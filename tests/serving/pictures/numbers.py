"""Pages with numbers, written with digits of MNIST."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

GAP = 5
MARGIN = 12
# Strokes as corners of a line, in columns and rows. The digits of MNIST lie in the rows 4 to 23.
SIGNS = {
    "/": [[(13, 0), (2, 27)]],
    "|": [[(2, 0), (2, 27)]],
    "(": [[(8, 1), (4, 6), (2, 11), (2, 16), (4, 21), (8, 26)]],
    ")": [[(2, 1), (6, 6), (8, 11), (8, 16), (6, 21), (2, 26)]],
    "[": [[(8, 1), (2, 1), (2, 26), (8, 26)]],
    "]": [[(2, 1), (8, 1), (8, 26), (2, 26)]],
    "+": [[(2, 14), (12, 14)], [(7, 9), (7, 19)]],
    "=": [[(2, 11), (12, 11)], [(2, 17), (12, 17)]],
    "x": [[(2, 10), (12, 20)], [(12, 10), (2, 20)]],
}


def written(digits, truth, text, gap=GAP):
    """Return the ink of a text, uint8 ``[28, W]``. It may have digits, spaces, dots, minus signs and ``SIGNS``."""
    marks = {" ": np.zeros((28, 16), np.uint8), ".": np.zeros((28, 4), np.uint8), "-": np.zeros((28, 9), np.uint8)}
    marks["."][21:24] = 255
    marks["-"][13:15] = 255
    parts, used = [], dict.fromkeys("0123456789", 0)
    for character in text:
        if character in marks:
            parts.append(marks[character])
        elif character in SIGNS:
            parts.append(sign(SIGNS[character]))
        else:
            digit = digits[np.flatnonzero(truth == int(character))[used[character]]]
            used[character] += 1
            parts.append(digit[:, np.flatnonzero(digit.any(axis=0))[0] : np.flatnonzero(digit.any(axis=0))[-1] + 1])
        parts.append(np.zeros((28, gap), np.uint8))
    return np.concatenate(parts[:-1], axis=1)


def sign(strokes):
    """Return the ink of a sign, uint8 ``[28, W]``, drawn four times as large and then reduced."""
    width = max(x for stroke in strokes for x, _ in stroke) + 3
    canvas = Image.new("L", (4 * width, 4 * 28))
    for stroke in strokes:
        ImageDraw.Draw(canvas).line([(4 * x, 4 * y) for x, y in stroke], 255, 9, joint="curve")
    return np.asarray(canvas.reduce(4))


def page(*lines, scale=4, margin=MARGIN):
    """Return a page with these lines of ink, dark on white, uint8 ``[H, W]``."""
    width = max(line.shape[1] for line in lines)
    ink = np.concatenate([np.pad(line, [(0, 4), (0, width - line.shape[1])]) for line in lines])
    return 255 - np.kron(np.pad(ink, margin), np.ones((scale, scale), np.uint8))
