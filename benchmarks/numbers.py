"""Measure how many whole numbers are right: rows of 2 to 12 digits of MNIST, drawn on pages.

    python -m benchmarks.numbers [--rows 100] [--table forms --table paper] [--digits validation] [--save FILE]

A number is right if the text has exactly its digits, line by line. The gap is the distance of the boxes around the ink
of neighbouring digits, in pixels of MNIST. Below 0 the boxes overlap. In a row with uneven gaps, each gap is a random
one from -1 to 8. The digits keep their place in MNIST's frame from top to bottom.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.digits import choose_digits, load_digits
from benchmarks.drawings import Array, Random, encode
from benchmarks.marks import DIGIT, OWN_SIZE, PATTERNS, SCALE, marked_row
from benchmarks.pages import phone_light
from benchmarks.paper import BLANK, FORMS, blank, form
from benchmarks.report import conditions, save_option
from serving.inference.numbers import NumberPrediction, NumberReading
from serving.models import repository
from serving.models.model import Model
from serving.pictures.number_form import to_number_page
from serving.settings import RELEASE, Settings

UNEVEN = None
GAPS = (8, 2, 1, 0, -1, -2, UNEVEN)
WIDEST_UNEVEN = 8
MARGIN = 10


def row_of(digits: list[Array], gap: int | None, random: Random, *, slant: float = 0.0, sizes: float = 0.0) -> Array:
    """Return the ink of the digits side by side, 0 to 255, without a margin.

    Args:
        gap: pixels between the boxes around the ink, or ``UNEVEN``.
        slant: the largest lean of the whole row: columns per row.
        sizes: the largest change of the size of each digit, as a share.
    """
    shear = random.uniform(-slant, slant)
    drawn = [changed(digit, shear, 1 + random.uniform(-sizes, sizes)) for digit in digits]
    height = max(len(ink) for ink in drawn)
    widest = WIDEST_UNEVEN if gap is UNEVEN else max(gap, 0)
    page = np.zeros((height, sum(ink.shape[1] for ink in drawn) + (len(drawn) + 1) * widest), np.uint8)
    at = 0
    for ink in drawn:
        columns = np.flatnonzero(ink.any(axis=0))
        ink = ink[:, columns[0] : columns[-1] + 1]
        top, at = (height - len(ink)) // 2, max(at, 0)
        place = page[top : top + len(ink), at : at + ink.shape[1]]
        np.maximum(place, ink, out=place)
        at += ink.shape[1] + (int(random.integers(-1, WIDEST_UNEVEN + 1)) if gap is UNEVEN else gap)
    return page[:, np.flatnonzero(page.any(axis=0))[0] : np.flatnonzero(page.any(axis=0))[-1] + 1]


def changed(digit: Array, shear: float, size: float) -> Array:
    """Return a digit of 28x28 with a lean and another size."""
    if not shear and size == 1:
        return digit
    side = round(28 * size)
    wide = round(side * (1 + abs(shear)))
    # Columns of the digit for a column x and a row y of the result.
    matrix = (1 / size, shear / size, 14 - (wide / 2 + shear * side / 2) / size, 0, 1 / size, 0)
    picture = Image.fromarray(digit).transform((wide, side), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    return np.asarray(picture)


def page_of(ink: Array, scale: float) -> Array:
    """Return a page with dark ink on white paper and a margin, brightness 0 to 255, ``scale`` times as large."""
    page = np.pad(ink, MARGIN)
    size = round(page.shape[1] * scale), round(page.shape[0] * scale)
    return 255 - np.asarray(Image.fromarray(page).resize(size, Image.Resampling.BICUBIC)).astype(np.float32)


def ruled(page: Array, random: Random, *, squared: bool = False) -> Array:
    """Rule the paper: lines of a quarter to a half of the ink's contrast, as far apart as the digits are high."""
    page = page.copy()
    pitch = max(8, round(len(page) * random.uniform(0.35, 0.6)))
    thick = max(1, round(len(page) / 60))
    shade = 255 * (1 - random.uniform(0.25, 0.5))
    for lines in (page, page.T) if squared else (page,):
        for top in range(int(random.integers(pitch)), len(lines), pitch):
            lines[top : top + thick] = np.minimum(lines[top : top + thick], shade)
    return page


def shadowed(page: Array, random: Random) -> Array:
    """Light the paper from one side, with the edge of a shadow and grain."""
    y, x = np.mgrid[0 : 1 : len(page) * 1j, 0 : 1 : page.shape[1] * 1j]
    turn = random.uniform(0, 2 * np.pi)
    light = 0.75 + 0.2 * (np.cos(turn) * (2 * x - 1) + np.sin(turn) * (2 * y - 1))
    light = light * np.where(x + random.uniform(-1, 1) * y > random.uniform(0.3, 1), 1, 0.75)
    return (60 + 0.7 * page) * light + random.normal(0, 4, page.shape)


def tilted(page: Array, random: Random) -> Array:
    """Turn the page by up to 8 degrees."""
    return turned(page, random.uniform(-8, 8))


def steep(page: Array, random: Random) -> Array:
    """Turn the page by 10 to 25 degrees, to the left or to the right."""
    return turned(page, random.choice([-1, 1]) * random.uniform(10, 25))


def turned(page: Array, degrees: float) -> Array:
    picture = Image.fromarray(page).rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=float(page[0, 0]))
    return np.asarray(picture)


def in_phone_shadow(page: Array, random: Random) -> Array:
    """Photograph the page in the soft shadow of the phone, with grain."""
    return (40 + 0.75 * page) * phone_light(page.shape, random) + random.normal(0, 3, page.shape)


def thin(page: Array, random: Random) -> Array:
    """Write with a thinner pen: take 1 to 3 pixels from both sides of each stroke."""
    size = 2 * int(random.integers(1, 4)) + 1
    return np.asarray(Image.fromarray(page.astype(np.uint8)).filter(ImageFilter.MaxFilter(size))).astype(np.float32)


def boxed(page: Array, random: Random) -> Array:
    """Draw a box around the numbers, by hand: its corners are not quite right."""
    page = np.pad(page, 40, constant_values=255)
    height, width = page.shape
    corners = [
        (x + random.uniform(-8, 8), y + random.uniform(-8, 8))
        for x, y in ((16, 16), (width - 16, 16), (width - 16, height - 16), (16, height - 16))
    ]
    canvas = Image.fromarray(page)
    ImageDraw.Draw(canvas).line([*corners, corners[0]], 40.0, int(random.integers(3, 9)))
    return np.asarray(canvas)


def underlined(page: Array, random: Random) -> Array:
    """Draw one or two lines under the numbers."""
    page = np.pad(page, [(0, 60), (0, 0)], constant_values=255)
    height, width = page.shape
    canvas = Image.fromarray(page)
    for step in range(int(random.integers(1, 3))):
        at, slope = height - 50 + 18 * step, random.uniform(-0.02, 0.02) * width
        ImageDraw.Draw(canvas).line((12, at - slope, width - 12, at + slope), 40.0, int(random.integers(3, 9)))
    return np.asarray(canvas)


def on_table(page: Array, random: Random) -> Array:
    """Photograph the sheet, turned by up to 6 degrees, on a darker table."""
    around = int(random.integers(30, 90))
    turned = Image.fromarray(page).rotate(random.uniform(-6, 6), Image.Resampling.BICUBIC, expand=True, fillcolor=-1.0)
    sheet = np.pad(np.asarray(turned), around, constant_values=-1)
    table = random.uniform(40, 130) + random.normal(0, 8, sheet.shape)
    return np.where(sheet < 0, table, 30 + 0.8 * sheet) + random.normal(0, 3, sheet.shape)


def saved(page: Array) -> bytes:
    return encode(np.clip(page, 0, 255).astype(np.uint8))


Kind = Callable[[Array, Array, int | None, Random], tuple[bytes, str]]


def seed_of(gap: int | None) -> int:
    return 20 if gap is UNEVEN else gap + 10


def kind(
    scale: float,
    slant: float = 0,
    sizes: float = 0,
    paper: Callable[[Array, Random], Array] | None = None,
    lines: int = 1,
) -> Kind:
    """Return a function that draws a page with numbers and returns it with their text."""

    def draw(images: Array, labels: Array, gap: int | None, random: Random) -> tuple[bytes, str]:
        rows, texts = [], []
        for _ in range(lines):
            chosen = random.integers(0, len(images), random.integers(2, 13))
            rows.append(row_of([images[i] for i in chosen], gap, random, slant=slant, sizes=sizes))
            texts.append("".join(str(labels[i]) for i in chosen))
        width = max(row.shape[1] for row in rows)
        ink = np.concatenate([np.pad(row, [(0, 6), (0, width - row.shape[1])]) for row in rows])
        page = page_of(ink, scale)
        return saved(paper(page, random) if paper else page), "\n".join(texts)

    return draw


KINDS: dict[str, Kind] = {
    "at MNIST's size": kind(1),
    "4 times as large": kind(4),
    "slanted": kind(3, slant=0.35),
    "sizes differ by a quarter": kind(3, sizes=0.25),
    "tilted": kind(3, paper=tilted),
    "two lines": kind(3, lines=2),
    "ruled paper": kind(4, paper=ruled),
    "shadow and grain": kind(4, paper=shadowed),
}


PHOTOS: dict[str, Kind] = {
    "shadow of the phone": kind(4, paper=in_phone_shadow),
    "in a drawn box": kind(4, paper=boxed),
    "underlined": kind(4, paper=underlined),
    "sheet on a table": kind(4, paper=on_table),
    "squared paper": kind(4, paper=functools.partial(ruled, squared=True)),
    "thin pen": kind(4, paper=thin),
}
"""More pages, with uneven gaps."""


TURNED: dict[str, Kind] = {
    "tilted by 10 to 25°": kind(3, paper=steep),
    "two lines, tilted by 10 to 25°": kind(3, paper=steep, lines=2),
}
"""Pages for the table of photos that benchmarks/fit_path.py does not use."""


def marked(pattern: str, images: Array, labels: Array, random: Random, *, one_hand: bool = False) -> tuple[bytes, str]:
    """Draw a page with a pattern of benchmarks/marks.py, and return it with its digits.

    Args:
        one_hand: all 1s of the row are the same image, and so are all 2s, and so on.
    """
    places = [character for character in pattern if character in DIGIT]
    chosen, sizes = random.integers(0, len(images), len(places)).tolist(), None
    ones = np.flatnonzero(labels == 1)
    chosen = [int(ones[i % len(ones)]) if place == "1" else i for i, place in zip(chosen, places, strict=True)]
    if one_hand:
        first: dict[int, int] = {}
        chosen = [first.setdefault(int(labels[i]), i) for i in chosen]
        size_of = 1 + random.uniform(-OWN_SIZE, OWN_SIZE, 10)
        sizes = [float(size_of[labels[i]]) for i in chosen]
    row = marked_row([images[i] for i in chosen], pattern, random, sizes)
    page = 255 - np.pad(row, MARGIN * SCALE).astype(np.float32)
    return saved(page), "".join(str(labels[i]) for i in chosen)


def read(model: Model, picture: bytes) -> NumberPrediction:
    """Return the numbers in a picture, as /predict?mode=number does."""
    reading = NumberReading(model, [to_number_page(picture, Settings.max_pixels)])
    return reading.predictions(model.classifier.classify(reading.images) if len(reading.images) else None)[0]


def outcomes(model: Model, pages: list[tuple[bytes, str]]) -> tuple[Array, Array]:
    """Return for each page, given with its text, whether it is read right, and whether it is accepted."""
    found = [(read(model, picture), text) for picture, text in pages]
    return (
        np.array([prediction.text == text for prediction, text in found]),
        np.array([prediction.accepted for prediction, _ in found]),
    )


def row(name: str, model: Model, pages: list[tuple[bytes, str]]) -> str:
    """Return the row of a table: the share of pages that are read right, and that are accepted although wrong."""
    right, accepted = outcomes(model, pages)
    return f"| {name} | {right.mean():.1%} | {(accepted & ~right).mean():.1%} |"


def table(model: Model, images: Array, labels: Array, rows: int) -> Iterator[str]:
    """Yield the share of pages whose numbers are all right, for each kind of page and each gap."""
    names = ["uneven gaps" if gap is UNEVEN else f"gap {gap}" for gap in GAPS]
    yield f"\n| whole page right, of {rows} pages each | {' | '.join(names)} |"
    yield f"|---|{'---:|' * len(GAPS)}"
    shares: list[list[float]] = []
    all_right, all_accepted = [], []
    for number, (name, draw) in enumerate(KINDS.items()):
        shares.append([])
        for gap in GAPS:
            random = np.random.default_rng([number, seed_of(gap)])
            right, accepted = outcomes(model, [draw(images, labels, gap, random) for _ in range(rows)])
            shares[-1].append(right.mean())
            all_right.append(right)
            all_accepted.append(accepted)
        yield f"| {name} | {' | '.join(f'{share:.0%}' for share in shares[-1])} |"
    yield f"| **mean** | {' | '.join(f'**{share:.1%}**' for share in np.mean(shares, axis=0))} |"
    right, accepted = np.concatenate(all_right), np.concatenate(all_accepted)
    yield (
        f"\n{accepted[right].mean():.1%} of the pages that are right are accepted; "
        f"{(accepted & ~right).mean():.1%} of all pages are accepted and wrong."
    )


def photos(model: Model, images: Array, labels: Array, rows: int) -> Iterator[str]:
    """Yield the share of pages whose numbers are all right, and of those accepted although they are wrong."""
    yield f"\n| pages with uneven gaps, {rows} of each kind | whole page right | accepted and wrong |\n|---|---:|---:|"
    for number, (name, draw) in enumerate((PHOTOS | TURNED).items()):
        random = np.random.default_rng([number, seed_of(UNEVEN), 1])
        yield row(name, model, [draw(images, labels, UNEVEN, random) for _ in range(rows)])


def marks(model: Model, images: Array, labels: Array, rows: int) -> Iterator[str]:
    """Yield the share of rows with marks whose digits are all right, and of those accepted although they are wrong."""
    yield f"\n| rows with marks, {rows} of each kind | all digits right | accepted and wrong |\n|---|---:|---:|"
    for number, ((name, pattern), one_hand) in enumerate(itertools.product(PATTERNS.items(), (False, True))):
        random = np.random.default_rng([number, 2])
        pages = [marked(pattern, images, labels, random, one_hand=one_hand) for _ in range(rows)]
        yield row(f"{name}{', of one hand' if one_hand else ''}", model, pages)


def forms(model: Model, images: Array, labels: Array, rows: int) -> Iterator[str]:
    """Yield the share of rows of fields whose digits are all right, and of those accepted although they are wrong."""
    yield f"\n| fields of a form, {rows} of each kind | all digits right | accepted and wrong |\n|---|---:|---:|"
    kinds = itertools.product(FORMS, (1.0, 0.6, 0.0), (False, True))
    for number, (style, filled, photo) in enumerate(kinds):
        random = np.random.default_rng([number, 3])
        pages = [form(style, images, labels, random, filled=filled, photo=photo) for _ in range(rows)]
        name = {1.0: "filled", 0.6: "three of five filled", 0.0: "empty"}[filled]
        yield row(f"{style}, {name}{', photo' if photo else ''}", model, pages)


def papers(model: Model, images: Array, labels: Array, rows: int) -> Iterator[str]:
    """Yield the share of blank sheets in which no digit is found, and of those accepted as a number."""
    yield f"\n| blank paper, {rows} of each kind | no digit found | accepted |\n|---|---:|---:|"
    for number, (name, photo) in enumerate(itertools.product(BLANK, (False, True))):
        random = np.random.default_rng([number, 4])
        pages = [(blank(name, random, photo=photo), "") for _ in range(rows)]
        yield row(f"{name}{', photo' if photo else ''}", model, pages)


def large_page(images: Array, labels: Array) -> bytes:
    """Return a photo of 2 megapixels with four lines of five digits."""
    random = np.random.default_rng(0)
    rows = [row_of([images[i] for i in random.integers(0, len(images), 5)], 8, random) for _ in range(4)]
    width = max(row.shape[1] for row in rows)
    page = page_of(np.concatenate([np.pad(row, [(0, 14), (0, width - row.shape[1])]) for row in rows]), 1)
    enlarged = np.asarray(Image.fromarray(page).resize((1632, 1224), Image.Resampling.BICUBIC))
    return saved(shadowed(enlarged, random))


TABLES = {"numbers": table, "photos": photos, "marks": marks, "forms": forms, "paper": papers}


@click.command()
@click.option("--rows", default=100, show_default=True, type=click.IntRange(min=1), help="Pages of each kind and gap.")
@click.option("--data", "mnist", type=click.Path(path_type=Path), help="Folder with MNIST.")
@click.option("--repository", "folder", type=click.Path(path_type=Path), default=RELEASE, help="Model repository.")
@click.option("--table", "tables", multiple=True, type=click.Choice(list(TABLES)), help="Table to print; default all.")
@choose_digits
@save_option
def main(
    rows: int, mnist: Path | None, folder: Path, tables: tuple[str, ...], digits_set: str, save: Path | None
) -> None:
    """Measure how many whole numbers are right, and how long a large page takes."""
    images, labels = load_digits(digits_set, mnist)
    model = repository.load(folder, "mnist")
    lines = [conditions("onnxruntime", "numpy", "pillow", also=f"model {model.name} version {model.version}")]
    click.echo(lines[0])
    for line in itertools.chain(*(TABLES[name](model, images, labels, rows) for name in tables or TABLES)):
        click.echo(line)
        lines.append(line)
    if not tables or "numbers" in tables:
        lines.append(_time_of_large_page(model, images, labels))
        click.echo(lines[-1])
    if save:
        save.write_text("\n".join(lines) + "\n")


def _time_of_large_page(model: Model, images: Array, labels: Array) -> str:
    page = large_page(images, labels)
    seconds = []
    for _ in range(10):
        begin = time.process_time()
        read(model, page)
        seconds.append(time.process_time() - begin)
    return f"\n20 digits on a page of 1632x1224 pixels: {1000 * min(seconds):.0f} ms of one core, at best of 10."


if __name__ == "__main__":
    main()
