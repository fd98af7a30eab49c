"""Choose what makes up a line of digits: the best path from the first part of the line to its last.

An arc leads from one place between parts to a later one: over a candidate that may be a digit, or over a mark. Each arc
gets a score: how sure the network is, how much the candidate looks like one whole digit of this line, how probably the
mark is one. The best path is the sequence of arcs with the highest sum. The weights were fitted on rows of validation
digits with and without marks: they make the sum of a path the logarithm of its probability, except for a constant (a
conditional random field). ``benchmarks/fit_path.py`` fits them.
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
ASPECT = (-0.11, -0.93, -0.07, -0.23, -0.24, -0.07, -0.33, -0.26, -0.28, -0.39)
ASPECT_DEVIATION = (0.20, 0.46, 0.22, 0.21, 0.21, 0.26, 0.22, 0.21, 0.22, 0.21)

# The score of an arc is the sum of its properties, each times its weight.
WEIGHTS = {
    # A digit. In the names, 1 is the digit 1.
    "digit": 0.72,
    "log of the confidence": 0.71,
    "log of the doubt": -3.62,
    "novelty": -0.22,
    "high novelty": -0.50,
    "low": -9.51,
    "wide": -0.52,
    "unusual width": -0.83,
    "ink crossed beside it": -1.19,
    "widest gap inside": 5.90,
    "gaps inside": -1.25,
    "cuts inside through little ink": -2.58,
    "cuts inside": 1.09,
    "cuts beside it through ink": -0.82,
    "such cuts of a narrow piece": -2.89,
    "closer than usual": -6.60,
    "low 1": -2.69,
    "thin": -0.14,
    "thin 1": -1.95,
    # A mark, by its kind.
    "small mark": -4.23,
    "size of a small mark": -5.44,
    "mark alone": 5.05,
    # A sign of one stroke has the properties of serving/pictures/signs.py.
    "stroke": -0.53,
    "beyond the digits at one end": 26.92,
    "beyond the digits at the other end": 35.38,
    "lean": 0.37,
    "bend": -24.57,
    "digits differ in size": -21.28,
    "bend of two brackets": 42.35,
    "two brackets beyond the digits": 13.41,
    "slashes of a date": 2.83,
    "slashes of a date beyond the digits": 3.20,
    # A colon, a plus, a times or an equals sign.
    "small sign": 4.03,
}
# The column of each property.
PLACE = {name: place for place, name in enumerate(WEIGHTS)}
OF_DIGITS = PLACE["small mark"]
OF_STROKES = list(WEIGHTS)[PLACE["stroke"] : PLACE["small sign"]]
# The weights were fitted to novelty scores in this unit. One in a hundred digits had a higher score.
NOVELTY_UNIT = 1.41
# All lengths are shares of the height of the line.
# In the median gap of a line, wider gaps count as this wide: they separate numbers.
WIDEST_USUAL = 1.0
# A part of ink that is lower than this may be a piece of a digit, or dirt.
LOW = 0.85
# A candidate that is wider than this may be two digits.
WIDE = 0.9
# A width that differs from the usual one by more than 3 standard deviations counts as if it differed by 3.
MOST_UNUSUAL = 9.0
# A cut that crosses less ink than this often lies between two digits that touch.
LITTLE_INK = 0.15
# A part that is smaller than this may be a mark: a dot, a comma, a minus or dirt.
LARGEST_MARK = 0.5
# A mark stands apart if the gaps on both sides of it are at least this wide.
ALONE = 0.1
# A mark that stands apart is lower than this, if it is no colon. Hardly any digit is so low.
ALONE_HEIGHT = 0.4
# A mark that stands apart is narrower than this, if it is no colon. A minus is nearly this wide.
ALONE_WIDTH = 0.9
# A colon without paper between its dots is lower and narrower than this. It is higher than other marks.
COLON_HEIGHT, COLON_WIDTH = 0.55, 0.25


Step = int | Part
"""A digit, by its index among the candidates of the line, or a part that is a mark."""


class Arc(NamedTuple):
    """Leads from one place of a line to a later one. Place ``i`` is the one before part ``i``."""

    begin: int
    end: int
    step: Step | None
    """None if there is no ink."""


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
    arcs, properties = arcs_of(line, output)
    scores = (properties @ np.array([*WEIGHTS.values()])).tolist()
    ending: list[list[tuple[Arc, float]]] = [[] for _ in range(len(line.parts) + 1)]
    for arc, score in zip(arcs, scores, strict=True):
        ending[arc.end].append((arc, score))
    score, steps = _best_steps(ending)
    return Path(steps, math.exp(min(0.0, score - _sum_of_paths(ending))))


def arcs_of(line: LineParts, output: ModelOutput) -> tuple[list[Arc], npt.NDArray[np.float64]]:
    """Return all arcs of a line, and their properties, ``[arcs, len(WEIGHTS)]``."""
    arcs = [Arc(candidate.first, candidate.end, index) for index, candidate in enumerate(line.candidates)]
    rows = np.zeros((len(arcs), len(WEIGHTS)))
    if arcs:
        rows[:, :OF_DIGITS] = _of_digits(line, output)
    marks = dict(_signs(line)) | dict(_marks_alone(line))
    reached = {arc.end for arc in arcs}
    for at, part in enumerate(line.parts):
        size = max(part.height, part.width)
        if not size:
            marks[at, at + 1] = None, {}
        elif size < LARGEST_MARK or at + 1 not in reached:
            marks.setdefault((at, at + 1), (part, {"small mark": 1.0, "size of a small mark": size}))
    of_marks = np.zeros((len(marks), len(WEIGHTS)))
    for row, ((begin, end), (mark, properties)) in zip(of_marks, marks.items(), strict=True):
        arcs.append(Arc(begin, end, mark))
        row[[PLACE[name] for name in properties]] = list(properties.values())
    return arcs, np.concatenate([rows, of_marks])


def _best_steps(ending: Sequence[Sequence[tuple[Arc, float]]]) -> tuple[float, list[Step]]:
    """Return the score of the best path from the first part to the last (Viterbi), and its steps.

    Args:
        ending: for each place, the arcs that end there, with their scores.
    """
    # For each place: the score of the best path to it, and where the last arc of that path begins, with its step.
    best: list[float] = [0.0]
    back: list[tuple[int, Step | None]] = [(0, None)]
    for arcs in ending[1:]:
        ways = [(best[arc.begin] + score, arc.begin, arc.step) for arc, score in arcs]
        score, begin, step = max(ways, key=itemgetter(0), default=(-math.inf, 0, None))
        best.append(score)
        back.append((begin, step))
    steps: list[Step] = []
    at = len(ending) - 1
    while at:
        at, step = back[at]
        if step is not None:
            steps.append(step)
    return best[-1], steps[::-1]


def _sum_of_paths(ending: Sequence[Sequence[tuple[Arc, float]]]) -> float:
    """Return the logarithm of the sum over all paths from the first part to the last (forward algorithm)."""
    totals = [0.0]
    for arcs in ending[1:]:
        totals.append(float(np.logaddexp.reduce([totals[arc.begin] + score for arc, score in arcs] or [-math.inf])))
    return totals[-1]


Mark = tuple[Part | None, dict[str, float]]
"""The parts of a mark as one, and its properties, as in ``WEIGHTS``."""


def _signs(line: LineParts) -> Iterator[tuple[tuple[int, int], Mark]]:
    """Yield each sign: the first of its parts and the one after the last, and the mark."""
    for first, end, properties in line.signs:
        own = dict(zip(OF_STROKES, properties, strict=True)) if properties else {"small sign": 1.0}
        # The cuts inside a sign count as those inside a digit do.
        yield (first, end), (_joined(line.parts[first:end]), own | {"cuts inside": end - first - 1})


def _joined(parts: Sequence[Part]) -> Part:
    """Return neighbouring parts as one."""
    inked = [part for part in parts if part.height]
    return Part(
        max(part.height for part in inked), sum(part.width for part in inked), around([part.box for part in inked])
    )


def _marks_alone(line: LineParts) -> Iterator[tuple[tuple[int, int], Mark]]:
    """Yield each mark that stands apart: the first of its parts and the one after the last, and the mark."""
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
        is_colon = width < COLON_WIDTH and height < COLON_HEIGHT
        if (is_low or is_colon) and min(gaps[begin], gaps[end]) >= ALONE:
            yield (begin, end), (joined, {"mark alone": 1.0})


def _of_digits(line: LineParts, output: ModelOutput) -> npt.NDArray[np.float64]:
    """Return the properties of each candidate, ``[N, OF_DIGITS]``. There must be at least one candidate."""
    digits = output.probabilities.argmax(axis=1).tolist()
    sure = output.probabilities.max(axis=1).astype(np.float64)
    novelty = output.novelty.astype(np.float64) / NOVELTY_UNIT
    usual = _Usual(_usual_gap(line), _pen(line.parts))
    shapes = [_shape(line, candidate, digit, usual) for candidate, digit in zip(line.candidates, digits, strict=True)]
    columns: dict[str, npt.ArrayLike] = {
        "digit": 1.0,
        "log of the confidence": np.log(np.maximum(sure, 1e-3)),
        "log of the doubt": np.log(np.maximum(1 - sure, 1e-6)) / 10,
        "novelty": np.minimum(novelty, 4),
        "high novelty": np.clip(novelty - 1, 0, 3),
        **{name: [shape[name] for shape in shapes] for name in shapes[0]},
    }
    properties = np.zeros((len(digits), OF_DIGITS))
    for name, column in columns.items():
        properties[:, PLACE[name]] = column
    return properties


class _Usual(NamedTuple):
    """What is usual in a line, as shares of its height."""

    gap: float
    pen: float
    """How broad the strokes are."""


def _pen(parts: Sequence[Part]) -> float:
    """Return about how broad the strokes of some parts are: their ink per length of their longer sides."""
    return sum(part.mass for part in parts) / max(1e-6, sum(max(part.height, part.width) for part in parts))


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


def _shape(line: LineParts, candidate: Candidate, digit: int, usual: _Usual) -> dict[str, float]:
    """Return the properties of a candidate that say how it differs from a whole digit, by its size and its cuts."""
    first, end = candidate.first, candidate.end
    beside = [i for i in (first - 1, end - 1) if 0 <= i < len(line.crossed)]
    through_ink = sum(line.gaps[i] == 0 for i in beside)
    inside = range(first, end - 1)
    # A model with other labels than MNIST's has no usual shapes.
    mean, deviation = (ASPECT[digit], ASPECT_DEVIATION[digit]) if digit < len(ASPECT) else (0.0, math.inf)
    low = max(0.0, LOW - candidate.height)
    # A stroke that is thin beside the others is dirt more often, or a part of the digit beside it.
    mass = sum(part.mass for part in line.parts[first:end])
    thin = max(0.0, 1.0 - mass / max(candidate.height, candidate.width) / max(1e-6, usual.pen))
    is_stroke = digit == 1
    differs = (math.log(candidate.width / candidate.height) - mean) / deviation
    return {
        "low": low,
        "wide": max(0.0, candidate.width - WIDE),
        "unusual width": min(MOST_UNUSUAL, differs * differs) / MOST_UNUSUAL,
        "ink crossed beside it": sum(line.crossed[i] for i in beside),
        "widest gap inside": max((line.gaps[i] for i in inside), default=0.0),
        "gaps inside": sum(line.gaps[i] > 0 for i in inside),
        "cuts inside through little ink": sum(
            max(0.0, LITTLE_INK - line.crossed[i]) / LITTLE_INK for i in inside if line.gaps[i] == 0
        ),
        "cuts inside": len(inside),
        "cuts beside it through ink": through_ink,
        # A narrow piece of ink is seldom two digits.
        "such cuts of a narrow piece": through_ink * max(0.0, 1.0 - _piece_width(line, candidate)),
        # Two digits of a line seldom stand much closer than the others. What does is more likely a piece of a digit.
        "closer than usual": sum(max(0.0, usual.gap - line.gaps[i]) for i in beside),
        "low 1": is_stroke * low,
        "thin": thin,
        "thin 1": is_stroke * thin,
    }
