"""Choose the candidates that make up a line of digits: the best path from the first part of the line to its last.

Each candidate gets a score: how sure the network is, and how much the candidate looks like one whole digit of this
line. The best path is the sequence of neighbouring candidates, and of marks between them, with the highest sum. The
weights were fitted on rows of training digits that are drawn like those of ``benchmarks/numbers.py``: they make the sum
of a path the logarithm of its probability, except for a constant (a conditional random field).
``benchmarks/fit_path.py`` fits them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from serving.contract import ModelOutput
from serving.pictures.number_form import Candidate, LineParts, Part, around

# The logarithm of width / height of MNIST's digits 0 to 9: mean and standard deviation in the training set.
ASPECT = (-0.11, -0.93, -0.07, -0.24, -0.24, -0.07, -0.33, -0.26, -0.28, -0.39)
ASPECT_DEVIATION = (0.20, 0.47, 0.22, 0.21, 0.21, 0.26, 0.22, 0.22, 0.22, 0.20)

# The weight of each property of a candidate, in the order of properties_of().
WEIGHTS = (0.97, 1.03, -2.81, -0.52, -0.42, -3.82, -2.76, -0.71, -1.07, -0.02, -0.77, -0.49, 2.44, -0.87, -1.37, -3.1)
# The weights were fitted to novelty scores in this unit. One in a hundred digits had a higher score.
NOVELTY_UNIT = 1.41
# For the usual gap of a line, a wider gap counts as this many heights of the line. Wider gaps separate numbers.
WIDEST_USUAL = 1.0
# The constants of marks were chosen by hand, except for MARK_WEIGHT, which is fitted.
# A part smaller than this share of the line's height may be a mark: a dot, a comma, a minus or dirt.
LARGEST_MARK = 0.5
# The score of a mark is MARK_WEIGHT * (MARK_CONSTANT + its longer side).
MARK_WEIGHT, MARK_CONSTANT = -4.26, 0.2
# The score of a low mark that stands apart: hardly any digit is so low.
ALONE_SCORE = 3.0
# Such a mark has gaps of at least this width beside it.
ALONE = 0.1
# It is lower than this.
ALONE_HEIGHT = 0.4
# It may be longer than other marks, as a minus is.
ALONE_WIDTH = 0.9
# The score of a sign of even odds: that of most strokes that are a 1. Like a digit it gets more for each cut inside it,
# because a path of fewer steps has fewer scores.
SIGN_SCORE, CUT_INSIDE = 4.0, WEIGHTS[12]
# The two dots of a colon are one part, which is higher than other marks but as narrow as a dot.
COLON_HEIGHT, COLON_WIDTH = 0.55, 0.25
# A colon may be so high if there is paper between its dots.
HIGHEST_COLON = 0.9
# Less than this share of the rows of such a colon have ink. A stroke has ink in nearly all of its rows.
DOTTED = 0.7


Step = int | Part
"""A digit, by its index among the candidates of the line, or a part that is a mark."""

Arc = tuple[int, float, Step | None]
"""Goes from one place between parts to a later one: where it begins, its score, and its step; None without ink."""


class Path(NamedTuple):
    """The digits and marks of a line, from left to right."""

    steps: list[Step]
    probability: float
    """Probability of this path among all paths through the line."""


def best_path(line: LineParts, output: ModelOutput) -> Path:
    """Return the best path through a line.

    Args:
        line: has at least one part.
        output: the model output for the candidates of the line.
    """
    arcs = _arcs(line, _scores(line, output))
    score, steps = _best_steps(arcs)
    return Path(steps, math.exp(min(0.0, score - _sum_of_paths(arcs))))


def _arcs(line: LineParts, scores: Sequence[float]) -> list[list[Arc]]:
    """Return the arcs of a line, by the place where they end. Place ``i`` is the one before part ``i``.

    Args:
        scores: those of the candidates.
    """
    arcs: list[list[Arc]] = [[] for _ in range(len(line.parts) + 1)]
    for index, candidate in enumerate(line.candidates):
        arcs[candidate.end].append((candidate.first, scores[index], index))
    marks = dict(_signs(line, scores)) | {place: (ALONE_SCORE, mark) for place, mark in _marks_alone(line)}
    for at, part in enumerate(line.parts):
        size = max(part.height, part.width)
        if not size:
            arcs[at + 1].append((at, 0.0, None))
        elif (size < LARGEST_MARK or not arcs[at + 1]) and (at, at + 1) not in marks:
            arcs[at + 1].append((at, MARK_WEIGHT * (MARK_CONSTANT + size), part))
    for (begin, end), (score, mark) in marks.items():
        arcs[end].append((begin, score, mark))
    return arcs


def _best_steps(arcs: Sequence[Sequence[Arc]]) -> tuple[float, list[Step]]:
    """Return the score of the best path from the first part to the last (Viterbi), and its steps."""
    # For each end: the score of the best path to it, and where the last arc of that path begins, with its step.
    best: list[float] = [0.0]
    back: list[tuple[int, Step | None]] = [(0, None)]
    for ending in arcs[1:]:
        ways = [(best[first] + score, first, step) for first, score, step in ending]
        score, first, step = max(ways, key=itemgetter(0), default=(-math.inf, 0, None))
        best.append(score)
        back.append((first, step))
    steps: list[Step] = []
    at = len(arcs) - 1
    while at:
        at, step = back[at]
        if step is not None:
            steps.append(step)
    return best[-1], steps[::-1]


def _sum_of_paths(arcs: Sequence[Sequence[Arc]]) -> float:
    """Return the logarithm of the sum over all paths from the first part to the last (forward algorithm)."""
    totals = [0.0]
    for ending in arcs[1:]:
        totals.append(float(np.logaddexp.reduce([totals[first] + score for first, score, _ in ending] or [-math.inf])))
    return totals[-1]


def _signs(line: LineParts, scores: Sequence[float]) -> Iterator[tuple[tuple[int, int], tuple[float, Part]]]:
    """Yield each sign: the first of its parts and the one after the last, its score, and its parts as one."""
    digits = {(candidate.first, candidate.end): score for candidate, score in zip(line.candidates, scores, strict=True)}
    for first, end, odds in line.signs:
        even = SIGN_SCORE + CUT_INSIDE * (end - first - 1)
        # Ink that is more probably a digit never scores higher as a sign, however low the score of the digit is.
        even = min(even, digits.get((first, end), even)) if odds < 0 else even
        yield (first, end), (even + odds, _joined(line.parts[first:end]))


def _joined(parts: Sequence[Part]) -> Part:
    """Return neighbouring parts as one."""
    inked = [part for part in parts if part.height]
    return Part(
        max(part.height for part in inked), sum(part.width for part in inked), around([part.box for part in inked])
    )


def _marks_alone(line: LineParts) -> Iterator[tuple[tuple[int, int], Part]]:
    """Yield each mark that stands apart: the first of its parts and the one after the last, and its parts as one."""
    count = len(line.parts)
    gaps = [math.inf, *line.gaps, math.inf]  # The gap before each part, and the one after the last.
    edges = [i for i in range(count + 1) if gaps[i] > 0]
    for begin, end in itertools.pairwise(edges):
        parts = [part for part in line.parts[begin:end] if part.height]
        if not parts:
            continue
        joined = _joined(parts)
        height, width = joined.height, joined.width
        is_low = height < ALONE_HEIGHT and width < ALONE_WIDTH
        is_dotted = height < HIGHEST_COLON and sum(part.filled for part in parts) < DOTTED * len(parts)
        is_colon = width < COLON_WIDTH and (height < COLON_HEIGHT or is_dotted)
        if (is_low or is_colon) and min(gaps[begin], gaps[end]) >= ALONE:
            yield (begin, end), joined


def _scores(line: LineParts, output: ModelOutput) -> list[float]:
    if not line.candidates:
        return []
    scores: list[float] = (properties_of(line, output) @ np.array(WEIGHTS)).tolist()
    return scores


def properties_of(line: LineParts, output: ModelOutput) -> npt.NDArray[np.float64]:
    """Return the properties of each candidate, ``[N, len(WEIGHTS)]``. There must be at least one candidate."""
    digits = output.probabilities.argmax(axis=1).tolist()
    sure = output.probabilities.max(axis=1).astype(np.float64)
    novelty = output.novelty.astype(np.float64) / NOVELTY_UNIT
    by_network = [
        np.log(np.maximum(sure, 1e-3)),
        np.log(np.maximum(1 - sure, 1e-6)) / 10,
        np.minimum(novelty, 4),
        np.clip(novelty - 1, 0, 3),
    ]
    usual = _usual_gap(line)
    by_shape = [_shape(line, candidate, digit, usual) for candidate, digit in zip(line.candidates, digits, strict=True)]
    return np.column_stack([np.ones(len(digits)), *by_network, np.array(by_shape)])


def _piece_width(line: LineParts, candidate: Candidate) -> float:
    """Return the width of the ink between the gaps on both sides of a candidate."""
    first, last = candidate.first, candidate.end - 1
    while first > 0 and line.gaps[first - 1] == 0:
        first -= 1
    while last < len(line.gaps) and line.gaps[last] == 0:
        last += 1
    return sum(part.width for part in line.parts[first : last + 1])


def _usual_gap(line: LineParts) -> float:
    """Return the median width of the gaps of a line, or 0 if it has none."""
    gaps = [min(gap, WIDEST_USUAL) for gap in line.gaps if gap > 0]
    return float(np.median(gaps)) if gaps else 0.0


def _shape(line: LineParts, candidate: Candidate, digit: int, usual_gap: float) -> Sequence[float]:
    """Return how much a candidate differs from a whole digit, by its size and by the cuts beside and inside it."""
    first, end = candidate.first, candidate.end
    beside = [i for i in (first - 1, end - 1) if 0 <= i < len(line.crossed)]
    through_ink = sum(line.gaps[i] == 0 for i in beside)
    inside = range(first, end - 1)
    # A model with other labels than MNIST's has no usual shapes.
    mean, deviation = (ASPECT[digit], ASPECT_DEVIATION[digit]) if digit < len(ASPECT) else (0.0, math.inf)
    differs = (math.log(candidate.width / candidate.height) - mean) / deviation
    return (
        max(0.0, 0.85 - candidate.height),
        max(0.0, candidate.width - 0.9),
        min(9.0, differs * differs) / 9,
        sum(line.crossed[i] for i in beside),
        max((line.gaps[i] for i in inside), default=0.0),
        sum(line.gaps[i] > 0 for i in inside),
        sum(max(0.0, 0.15 - line.crossed[i]) / 0.15 for i in inside if line.gaps[i] == 0),
        len(inside),
        through_ink,
        # A narrow piece of ink is seldom two digits.
        through_ink * max(0.0, 1.0 - _piece_width(line, candidate)),
        # Two digits of a line seldom stand much closer than the others. What does is more likely a piece of a digit.
        sum(max(0.0, usual_gap - line.gaps[i]) for i in beside),
    )
