"""Pages with numbers, written with digits of MNIST."""

from __future__ import annotations

import numpy as np

GAP = 5
MARGIN = 12


def written(digits, truth, text, gap=GAP):
    """Return the ink of a text, uint8 ``[28, W]``. Besides digits it may have spaces, dots and minus signs."""
    marks = {" ": np.zeros((28, 16), np.uint8), ".": np.zeros((28, 4), np.uint8), "-": np.zeros((28, 9), np.uint8)}
    marks["."][21:24] = 255
    marks["-"][13:15] = 255
    parts, used = [], dict.fromkeys("0123456789", 0)
    for character in text:
        if character in marks:
            parts.append(marks[character])
        else:
            digit = digits[np.flatnonzero(truth == int(character))[used[character]]]
            used[character] += 1
            parts.append(digit[:, np.flatnonzero(digit.any(axis=0))[0] : np.flatnonzero(digit.any(axis=0))[-1] + 1])
        parts.append(np.zeros((28, gap), np.uint8))
    return np.concatenate(parts[:-1], axis=1)


def page(*lines, scale=4, margin=MARGIN):
    """Return a page with these lines of ink, dark on white, uint8 ``[H, W]``."""
    width = max(line.shape[1] for line in lines)
    ink = np.concatenate([np.pad(line, [(0, 4), (0, width - line.shape[1])]) for line in lines])
    return 255 - np.kron(np.pad(ink, margin), np.ones((scale, scale), np.uint8))
