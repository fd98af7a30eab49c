"""Whole numbers: lines, digits with boxes, marks and gaps, on clean and on difficult pages."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.bombs import high_lines
from benchmarks.marks import marked_row
from benchmarks.numbers import KINDS
from benchmarks.paper import BLANK, FORMS, blank, form
from benchmarks.polylines import STYLES
from serving.errors import DeadlineExceededError, InputTooLargeError
from serving.inference.comparison import Comparison
from serving.inference.numbers import NumberReading
from serving.models import repository
from serving.pictures import work
from serving.pictures.lines import find_lines
from serving.pictures.morphology import grey_closing
from serving.pictures.number_form import NumberPage, to_number_page
from serving.pictures.page_ink import find_page_ink
from serving.pictures.pieces import Piece
from serving.settings import RELEASE
from tests.serving.pictures.numbers import MARGIN, page, sign, written
from tests.support import picture

MAX_PIXELS = 25_000_000


@pytest.fixture(scope="module")
def read():
    """Return a function that reads the numbers in a picture file, or in an array."""
    model = repository.load(RELEASE, "mnist")

    def read(content):
        content = content if isinstance(content, bytes) else picture(np.clip(content, 0, 255).astype(np.uint8))
        reading = NumberReading(model, [to_number_page(content, MAX_PIXELS)])
        output = model.classifier.classify(reading.images) if len(reading.images) else None
        [prediction] = reading.predictions(output)
        return prediction

    return read


@pytest.fixture(scope="module")
def write(digits, truth):
    return lambda text, **options: written(digits, truth, text, **options)


def test_comparison_of_numbers_counts_its_pages(write):
    reading = NumberReading(None, [to_number_page(picture(page(write("190654738201"))), MAX_PIXELS)])
    comparison = Comparison(None, None, is_canary=False, reading=reading)
    comparison.ran(reading.images, None, 0.0)
    # The images of the candidates are there twice, in one array and in the pages.
    assert comparison.size > 2 * reading.images.nbytes > 0


@pytest.mark.parametrize("text", ["7", "42", "2026", "190654738201"])
@pytest.mark.parametrize("scale", [1, 4])
def test_number_of_any_length_is_read(read, write, text, scale):
    found = read(page(write(text), scale=scale))
    assert (found.text, found.accepted, found.reason) == (text, True, None)


@pytest.mark.parametrize("gap", [2, 1, 0])
def test_digits_that_are_close_or_touch_are_told_apart(read, write, gap):
    assert read(page(write("2026378", gap=gap))).text == "2026378"


def test_no_line_is_seen_through_small_digits_that_touch(read, digits, truth):
    random = np.random.default_rng(2)
    pages = [KINDS["at MNIST's size"](digits[:1000], truth[:1000], -1, random) for _ in range(40)]
    assert sum(read(picture).text == text for picture, text in pages) >= 33


@pytest.mark.parametrize("pen", [1, 2])
@pytest.mark.parametrize("height", [80, 120, 160])
def test_digits_of_a_thin_pen_are_not_cut_into_pieces(read, height, pen):
    drawn = Image.new("L", (10 * height, 2 * height), 255)
    draw, left = ImageDraw.Draw(drawn), 0.5
    for digit in range(10):
        strokes = STYLES[digit][min(2, len(STYLES[digit]) - 1)]
        for stroke in strokes:
            draw.line([(height * (left + 0.65 * x), height * (0.5 + y)) for x, y in stroke], 0, pen)
        left += 0.3 + 0.65 * max(x for stroke in strokes for x, _ in stroke)
    assert read(np.asarray(drawn)).text == "0123456789"


def test_tick_close_to_a_digit_is_not_one_more_digit_if_the_others_stand_apart(read, write):
    ink = write("2026378", gap=8)
    columns = np.flatnonzero(ink.any(axis=0))
    zero_ends = columns[np.flatnonzero(np.diff(columns) > 8)[1]]
    ink[8:18, zero_ends + 2 : zero_ends + 4] = 255
    assert read(page(ink, scale=3)).text == "2026378"


@pytest.mark.parametrize("shade", [110, 255])
@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("rows", [slice(4, 16), slice(4, 18), slice(8, 20)])
def test_short_thin_stroke_between_digits_is_not_one_more_digit(read, write, rows, columns, shade):
    ink = write("2026378", gap=8)
    inked = np.flatnonzero(ink.any(axis=0))
    zero_ends = inked[np.flatnonzero(np.diff(inked) > 8)[1]]
    ink[rows, zero_ends + 3 : zero_ends + 3 + columns] = shade
    assert read(page(ink)).text == "2026378"


@pytest.mark.parametrize("pair", ["20", "63", "78", "51"])
def test_two_digits_that_touch_are_told_apart_if_the_others_stand_apart(read, write, pair):
    apart = np.zeros((28, 8), np.uint8)
    ink = np.concatenate([write("43", gap=8), apart, write(pair, gap=0), apart, write("95", gap=8)], axis=1)
    assert read(page(ink)).text == f"43{pair}95"


def test_boxes_are_in_the_pixels_of_the_picture(read, write):
    ink = write("28", gap=6)
    [line] = read(page(ink, scale=4)).lines
    columns = np.flatnonzero(ink.any(axis=0))
    gap = int(np.flatnonzero(np.diff(columns) > 1)[0])
    expected = [(columns[0], columns[gap] + 1), (columns[gap + 1], columns[-1] + 1)]
    for digit, (left, right) in zip(line.digits, expected, strict=True):
        found = np.array([digit.box[0], digit.box[2]]) / 4 - MARGIN
        assert np.abs(found - (left, right)).max() <= 1
    assert line.box[0] == line.digits[0].box[0]
    assert line.box[2] == line.digits[1].box[2]


def test_boxes_fit_a_large_photo_that_is_turned_by_its_camera(read, write):
    drawn = page(write("378"), scale=24)
    drawn = np.pad(drawn, [(1500, 1500), (2400, 100)], constant_values=255)
    exif = Image.Exif()
    exif[0x0112] = 6
    found = read(picture(np.rot90(drawn), "JPEG", exif=exif))
    assert (found.text, found.width, found.height) == ("378", drawn.shape[1], drawn.shape[0])
    rows, columns = np.nonzero(drawn < 128)
    edges = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    assert np.abs(np.subtract(found.lines[0].box, edges)).max() <= 24


def test_lines_are_read_from_top_to_bottom(read, write):
    found = read(page(write("1234"), write("56"), write("789")))
    assert found.text == "1234\n56\n789"
    assert [line.text for line in found.lines] == ["1234", "56", "789"]


def test_line_of_smaller_digits_is_read(read, write):
    first, second = page(write("47"), scale=8, margin=5), page(write("20836"), scale=3, margin=10)
    width = max(first.shape[1], second.shape[1])
    both = [np.pad(line, [(0, 0), (0, width - line.shape[1])], constant_values=255) for line in (first, second)]
    assert read(np.concatenate(both)).text == "47\n20836"


def test_speck_far_from_a_line_is_no_line(read, write):
    drawn = page(write("2026"), scale=4, margin=30)
    drawn[10:45, 20:30] = 0
    assert read(drawn).text == "2026"


@pytest.mark.parametrize("degrees", [-8, 7])
def test_line_that_rises_or_falls_is_read(read, write, degrees):
    drawn = Image.fromarray(page(write("20261735")))
    assert read(np.asarray(drawn.rotate(degrees, expand=True, fillcolor=255))).text == "20261735"


@pytest.mark.parametrize("degrees", [-25, -18, 18, 25])
@pytest.mark.parametrize("lines", [["20261735"], ["20261735", "49"], ["7.49-28"], ["49", "64", "83", "25"]])
def test_lines_of_a_page_that_is_turned_are_read(read, write, lines, degrees):
    drawn = Image.fromarray(page(*map(write, lines), margin=30))
    found = read(np.asarray(drawn.rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=255)))
    assert found.text == "\n".join(lines).replace(".", "").replace("-", "")


def test_numbers_like_stairs_are_separate_lines(read, write):
    left, middle, right = (write(text) for text in ("26", "49", "83"))
    width = left.shape[1] + middle.shape[1] + right.shape[1] + 40
    stairs = [
        np.pad(ink, [(0, 0), (at, width - at - ink.shape[1])])
        for ink, at in ((left, 0), (middle, left.shape[1] + 20), (right, width - right.shape[1]))
    ]
    assert read(page(*stairs)).text == "26\n49\n83"


def test_low_digit_of_two_pieces_is_not_left_out_as_if_the_page_were_turned():
    drawn = Image.new("L", (800, 600), 255)
    five = [(152, 250), (182, 223), (208, 255), (190, 288), (122, 282)]
    six = [(484, 152), (385, 275), (390, 305), (415, 312), (480, 270)]
    two = [(553, 220), (600, 188), (635, 195), (640, 230), (607, 315), (650, 337)]
    for stroke in (five, [(200, 200), (284, 182)], six, two, [(565, 350), (607, 315)]):
        ImageDraw.Draw(drawn).line(stroke, 0, 18, joint="curve")
    ink = find_page_ink(np.asarray(drawn, np.float32))
    assert sum(np.count_nonzero(line.ink) for line in find_lines(ink)) > 0.9 * np.count_nonzero(ink)


def side_by_side(left, right, lower):
    """Return the ink of two numbers with a gap of nine heights. The right one stands lower by this many rows."""
    return np.concatenate([np.pad(left, [(0, lower), (0, 180)]), np.pad(right, [(lower, 0), (0, 0)])], axis=1)


def test_numbers_of_one_row_are_one_line_however_far_apart_they_are(read, write):
    found = read(page(side_by_side(write("26"), write("83"), 0), side_by_side(write("17"), write("495"), 2)))
    assert found.text == "2683\n17495"
    assert [[mark.kind for mark in line.separators] for line in found.lines] == [["gap"], ["gap"]]


def test_columns_far_apart_whose_rows_are_not_level_are_separate_lines(read, write):
    assert read(page(side_by_side(write("26"), write("83"), 10))).text == "26\n83"


def test_separators_are_reported_and_not_read_as_digits(read, write):
    [line] = read(page(write("3.14 28"))).lines
    assert line.text == "31428"
    assert [(separator.kind, separator.after) for separator in line.separators] == [("mark", 1), ("gap", 3)]


def ruled(drawn):
    drawn = drawn.copy()
    drawn[5::50] = np.minimum(drawn[5::50], 140)
    drawn[6::50] = np.minimum(drawn[6::50], 140)
    return drawn


def squared(drawn):
    return np.minimum(ruled(drawn), ruled(drawn.T).T)


def shadowed(drawn):
    y, x = np.indices(drawn.shape)
    light = np.where(x + y > 0.4 * drawn.shape[1], 0.95, 0.7) - 0.2 * x / drawn.shape[1]
    return (60 + 0.7 * drawn) * light + np.random.default_rng(0).normal(0, 4, drawn.shape)


def in_the_shadow_of_a_phone(drawn):
    height, width = drawn.shape
    shadow = Image.new("L", (width, height))
    corners = [(0.6, -1), (1.1, 0.4), (0.7, 1), (0.4, 0.3)]
    ImageDraw.Draw(shadow).polygon([(x * width, y * height) for x, y in corners], 255)
    soft = np.asarray(shadow.filter(ImageFilter.GaussianBlur(6))) / 255
    return (40 + 0.8 * drawn) * (1 - 0.5 * soft) + np.random.default_rng(0).normal(0, 3, drawn.shape)


def squared_in_steep_light(drawn):
    pale = 255 - 0.6 * (255.0 - squared(np.full(drawn.shape, 255)))
    light = np.linspace(0.7, 1, drawn.shape[1])
    return np.minimum(drawn, pale) * light + np.random.default_rng(0).normal(0, 2, drawn.shape)


@pytest.mark.parametrize(
    "paper",
    [ruled, squared, squared_in_steep_light, shadowed, in_the_shadow_of_a_phone, lambda drawn: 255 - drawn],
)
def test_number_on_difficult_paper_is_read(read, write, paper):
    assert read(paper(page(write("20261735")))).text == "20261735"


@pytest.mark.parametrize("degrees", [-8, 5])
@pytest.mark.parametrize("paper", [ruled, squared])
def test_number_on_paper_that_is_turned_is_read(read, write, paper, degrees):
    blank = Image.fromarray(paper(np.full((600, 900), 255, np.uint8))).rotate(degrees, Image.Resampling.BICUBIC)
    number = page(write("20261735"), scale=3, margin=4)
    drawn = np.asarray(blank)[100:420, 150:750].copy()
    place = drawn[100 : 100 + number.shape[0], 20 : 20 + number.shape[1]]
    np.minimum(place, number, out=place)
    assert read(drawn).text == "20261735"


def test_number_written_with_a_pencil_is_read(read, write):
    ink = Image.fromarray(write("20261735")).resize((700, 112), Image.Resampling.BICUBIC)
    strokes = np.asarray(ink.filter(ImageFilter.MinFilter(5))) / 255
    grain = Image.fromarray(np.random.default_rng(0).integers(0, 256, (112, 700), np.uint8))
    is_covered = np.asarray(grain.filter(ImageFilter.GaussianBlur(0.7))) > 115
    drawn = np.pad(240 - 120 * strokes * is_covered, 30, constant_values=240)
    [line] = read(drawn).lines
    assert line.text == "20261735"
    rows, columns = np.nonzero(drawn < 200)
    edges = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    assert np.abs(np.subtract(line.box, edges)).max() <= 3


@pytest.mark.parametrize("ink_is_dark", [True, False])
def test_small_number_on_a_large_photo_in_light_from_one_side_is_read(read, write, ink_is_dark):
    drawn = np.pad(page(write("2026"), scale=1), [(300, 400), (600, 200)], constant_values=255) * 0.8 + 30
    photo = (drawn if ink_is_dark else 255 - drawn) * np.linspace(0.85, 1, drawn.shape[1])
    assert read(photo + np.random.default_rng(0).normal(0, 3, drawn.shape)).text == "2026"


def test_number_in_a_tight_crop_is_read(read, write):
    assert read(page(write("2026"), margin=0)).text == "2026"


@pytest.mark.parametrize("ink_is_dark", [True, False])
def test_number_on_a_sheet_on_a_desk_is_read(read, write, ink_is_dark):
    drawn = np.pad(page(write("2026")) * 0.8 + 30, 40, constant_values=90)
    assert read(drawn if ink_is_dark else 255 - drawn).text == "2026"


@pytest.mark.parametrize("desk", [40, 175])
@pytest.mark.parametrize("degrees", [0, -6])
@pytest.mark.parametrize("paper", [ruled, squared])
def test_number_on_a_ruled_sheet_on_a_desk_is_read(read, write, paper, degrees, desk):
    sheet = Image.fromarray(paper(page(write("20261735"), scale=3, margin=24)))
    photo = sheet.convert("RGBA").rotate(degrees, Image.Resampling.BICUBIC, expand=True)
    drawn = Image.new("L", (photo.width + 160, photo.height + 120), desk)
    drawn.paste(photo.convert("L"), (80, 60), photo.getchannel("A"))
    assert read(np.asarray(drawn) + np.random.default_rng(0).normal(0, 2, drawn.size[::-1])).text == "20261735"


def test_broken_line_along_the_edge_of_a_sheet_on_a_desk_is_no_digit(read, write):
    drawn = np.pad(page(write("2026")) * 0.8 + 30, 60, constant_values=90)
    edge = drawn[60:-60, -63:-61]
    edge[np.arange(len(edge)) % 90 < 60] = 130
    assert read(drawn + np.random.default_rng(0).normal(0, 2, drawn.shape)).text == "2026"


@pytest.mark.parametrize("degrees", [0, 5])
def test_shadow_along_two_edges_of_a_note_is_no_digit(read, write, degrees):
    note = Image.fromarray(page(write("2026"), scale=3, margin=10)).convert("RGBA")
    note = note.rotate(degrees, Image.Resampling.BICUBIC, expand=True)
    shadow = Image.new("L", (note.width + 120, note.height + 120))
    shadow.paste(120, (65, 66), note.getchannel("A"))
    drawn = Image.new("L", shadow.size, 235)
    drawn.paste(0, (0, 0), shadow.filter(ImageFilter.GaussianBlur(4)))
    drawn.paste(note.convert("L"), (60, 60), note.getchannel("A"))
    assert read(np.asarray(drawn) + np.random.default_rng(0).normal(0, 2, drawn.size[::-1])).text == "2026"


def with_holes(drawn):
    y, x = np.mgrid[: drawn.shape[0], : drawn.shape[1]]
    centres = [(20, 25), (len(drawn) - 20, 25)]
    holes = np.logical_or.reduce([np.hypot(y - row, x - column) < 13 for row, column in centres])
    return np.where(holes, 45, drawn)


def with_spiral(drawn):
    drawn = np.pad(drawn, [(24, 0), (0, 0)], constant_values=255)
    drawn[8:36, np.arange(drawn.shape[1]) % 48 < 24] = 50
    return drawn


def with_buttons(drawn):
    drawn = np.pad(drawn, [(0, 70), (0, 0)], constant_values=255)
    drawn[-54:-18, 20:120], drawn[-54:-18, 140:240] = 100, 115
    return drawn


def with_a_pen_below(drawn):
    canvas = Image.fromarray(np.pad(drawn, [(0, 70), (0, 0)], constant_values=255))
    ImageDraw.Draw(canvas).line((-10, canvas.height - 20, 0.8 * canvas.width, canvas.height - 45), 40, 24)
    return np.asarray(canvas)


def with_a_pen_beside(drawn):
    canvas = Image.fromarray(np.pad(drawn, [(0, 0), (0, 70)], constant_values=255))
    ImageDraw.Draw(canvas).line((canvas.width - 45, 15, canvas.width - 35, canvas.height + 9), 40, 24)
    return np.asarray(canvas)


@pytest.mark.parametrize("add", [with_holes, with_spiral, with_buttons, with_a_pen_below, with_a_pen_beside])
def test_solid_shape_beside_a_number_is_no_digit(read, write, add):
    drawn = add(page(write("2036"), scale=3, margin=20))
    assert read(drawn + np.random.default_rng(0).normal(0, 2, drawn.shape)).text == "2036"


@pytest.mark.parametrize("text", ["11", "1171", "20-35", "3.1"])
def test_strokes_and_dots_of_the_pen_that_wrote_the_number_stay(write, text):
    found = to_number_page(picture(page(write(text), margin=20)), MAX_PIXELS)
    assert sum(any(part.height for part in line.parts) for line in found.lines) == 1
    assert sum(gap > 0 for gap in found.lines[0].gaps) == len(text) - 1


def test_digit_with_filled_eyes_stays(write):
    drawn = page(np.concatenate([write("24"), np.zeros((28, 5), np.uint8), grey_closing(write("8"), 7)], axis=1))
    [line] = to_number_page(picture(drawn), MAX_PIXELS).lines
    assert sum(gap > 0 for gap in line.gaps) == 2


@pytest.mark.parametrize("shade", [90, 150, 190])
@pytest.mark.parametrize("turns", range(4))
def test_finger_at_the_border_is_no_digit(read, write, turns, shade):
    drawn = np.rot90(np.pad(page(write("2026"), scale=3), 60, constant_values=255), turns)
    canvas = Image.fromarray(drawn).resize((2 * drawn.shape[1], 2 * drawn.shape[0]))
    height = canvas.height
    ImageDraw.Draw(canvas).rounded_rectangle((-90, height - 130, 100, height - 20), 55, shade)
    photo = np.rot90(np.asarray(canvas.filter(ImageFilter.GaussianBlur(2)).reduce(2)), -turns)
    found = read(photo + np.random.default_rng(0).normal(0, 2, photo.shape))
    assert (found.text, found.accepted) == ("2026", True)


def test_desk_between_two_notes_is_no_digit(read, write):
    drawn = np.full((490, 420), 90, np.uint8)
    for top, text in ((20, "203"), (264, "84")):
        note = page(write(text), scale=3, margin=18)
        drawn[top : top + len(note), 50 : 50 + note.shape[1]] = np.clip(note, 0, 235)
    drawn = np.asarray(Image.fromarray(drawn).rotate(3, Image.Resampling.BICUBIC, fillcolor=90))
    assert read(drawn + np.random.default_rng(0).normal(0, 3, drawn.shape)).text == "203\n84"


@pytest.mark.parametrize("shade", [150, 170])
def test_number_across_the_ring_of_a_cup_is_read(read, write, shade):
    canvas = Image.fromarray(np.pad(page(write("202635"), scale=3, margin=20), 40, constant_values=255))
    drawn = np.asarray(canvas)
    ring = Image.new("L", canvas.size, 255)
    ImageDraw.Draw(ring).ellipse((180, 30, 420, 270), outline=shade, width=10)
    drawn = np.minimum(drawn, np.asarray(ring.filter(ImageFilter.GaussianBlur(3))))
    assert read(drawn + np.random.default_rng(0).normal(0, 2, drawn.shape)).text == "202635"


def test_large_number_of_a_pencil_under_a_small_one_of_a_pen_stays(read, write):
    pencil = np.rint(0.5 * np.kron(write("45"), np.ones((2, 2)))).astype(np.uint8)
    assert read(page(write("2036"), np.pad(pencil, [(8, 0), (0, 0)]), scale=3)).text == "2036\n45"


def test_one_that_is_higher_than_the_other_digits_stays(read, write):
    ink = np.pad(write("262"), [(14, 0), (0, 12)])
    ink[8:38, -3:] = 255
    assert read(page(ink)).text == "2621"


def boxed(ink):
    ink = np.pad(ink, 4)
    ink[[1, -2]] = ink[:, [1, -2]] = 200
    return ink


def circled(ink):
    canvas = Image.fromarray(np.pad(ink, [(16, 16), (30, 30)]))
    ImageDraw.Draw(canvas).ellipse((1, 1, canvas.width - 2, canvas.height - 2), outline=200, width=2)
    return np.asarray(canvas)


@pytest.mark.parametrize("margin", [1, 30])
@pytest.mark.parametrize("enclose", [boxed, circled])
def test_number_in_a_box_or_a_circle_is_read(read, write, enclose, margin):
    assert read(page(enclose(write("2026")), margin=margin)).text == "2026"


def test_digits_in_the_boxes_of_a_form_are_read(read, write):
    boxes = [boxed(write(digit))[:, :-2] for digit in "2026"]
    assert (
        read(page(np.concatenate([*boxes, np.pad(boxes[0][:, 1:2], [(0, 0), (0, 2)])], axis=1), margin=30)).text
        == "2026"
    )


def test_digit_that_touches_its_box_is_read(read, write):
    ink = boxed(write("2026"))
    ink[1:8, 12:14] = 255
    assert read(page(ink, margin=30)).text == "2026"


@pytest.mark.parametrize("rows", [8, 11])
def test_fields_with_ticks_between_the_digits_are_no_digits(read, write, rows):
    digits = [np.pad(write(digit), [(0, 8), (10, 10)]) for digit in "2026"]
    edges = np.cumsum([0, *(digit.shape[1] for digit in digits)])
    ink = np.pad(np.concatenate(digits, axis=1), [(0, 0), (0, 2)])
    ink[27] = ink[27 - rows : 27, edges] = 200
    assert read(page(ink, scale=2, margin=30)).text == "2026"


@pytest.mark.parametrize("style", FORMS)
@pytest.mark.parametrize("photo", [False, True], ids=["clean", "photo"])
def test_fields_of_a_form_are_no_digits(read, digits, truth, style, photo):
    random = np.random.default_rng(4)
    for filled in (0, 0.6):
        content, text = form(style, digits, truth, random, filled=filled, photo=photo)
        assert read(content).text == text


def test_digits_far_apart_in_a_row_of_fields_are_one_line(read, write):
    empty = np.zeros((28, 20), np.uint8)
    fields = [np.pad(boxed(ink), [(0, 0), (0, 4)]) for ink in (write("2"), *9 * [empty], write("6"))]
    assert read(page(np.concatenate(fields, axis=1), margin=30)).text == "26"


def test_zero_of_four_straight_strokes_is_no_field(read, write):
    ink = write("270")
    ink[:, -16:] = 0
    ink[4:24, [-14, -13, -4, -3]] = ink[[4, 5, 22, 23], -14:-2] = 255
    assert read(page(ink)).text == "270"


@pytest.mark.parametrize("text", ["470", "2017"])
def test_digit_that_touches_the_line_under_it_is_read(read, write, text):
    ink = np.pad(write(text), [(0, 6), (6, 6)])
    ink[24:26, 2:-2] = 200
    assert read(page(ink, margin=30)).text == text


def test_dot_in_a_zero_is_no_digit_and_the_zero_stays(read, write):
    ink = write("20")
    ink[12:15, -10:-7] = 255
    assert read(page(ink, margin=30)).text == "20"


@pytest.mark.parametrize("row", [23, 27])
def test_line_under_a_number_is_no_digit(read, write, row):
    ink = np.pad(write("2026"), [(0, 6), (6, 6)])
    ink[row] = 200
    ink[:, :2] = ink[:, -2:] = 0
    assert read(page(ink, margin=30)).text == "2026"


def test_dash_between_numbers_is_reported_as_a_mark(read, write):
    [line] = read(page(write("20-26"))).lines
    assert (line.text, [(separator.kind, separator.after) for separator in line.separators]) == ("2026", [("mark", 2)])


@pytest.mark.parametrize("row", [14, 9])
def test_colon_is_reported_as_a_mark(read, write, row):
    ink = write("07.31")
    dot = np.flatnonzero((ink[21:24] == 255).all(axis=0) & ~ink[:21].any(axis=0))
    ink[row : row + 3, dot] = 255
    [line] = read(page(ink)).lines
    assert (line.text, [(separator.kind, separator.after) for separator in line.separators]) == ("0731", [("mark", 2)])


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("12/05/2026", [2, 4]),
        ("3/4", [1]),
        ("5|8", [1]),
        ("(030)4567", [0, 3]),
        ("[42]", [0, 2]),
        ("2)378", [1]),
        ("+49306", [0]),
        ("12+7=19", [2, 3]),
        ("7x8=56", [1, 2]),
    ],
)
def test_sign_between_digits_is_reported_as_a_mark(read, write, text, after):
    found = read(page(write(text, gap=6)))
    assert (found.text, found.accepted) == ("".join(filter(str.isdigit, text)), True)
    marks = [separator for separator in found.lines[0].separators if separator.kind == "mark"]
    assert [mark.after for mark in marks] == after
    assert all(mark.box[0] < mark.box[2] for mark in marks)


@pytest.mark.parametrize("pattern", ["##:##", "##+##=##", "#x#=##"])
def test_signs_of_many_hands_are_marks(read, digits, truth, pattern):
    random = np.random.default_rng(3)
    right = 0
    for _ in range(20):
        chosen = random.integers(0, len(digits), pattern.count("#"))
        found = read(page(marked_row([digits[i] for i in chosen], pattern, random), margin=30))
        right += found.text == "".join(str(truth[i]) for i in chosen)
    assert right >= 18


@pytest.mark.parametrize("columns", [2, 6, 13])
def test_leaning_1_that_is_as_high_as_the_other_digits_is_no_slash(read, write, columns):
    apart = np.zeros((28, 6), np.uint8)
    one = sign([[(2 + columns, 5), (2, 22)]])
    assert read(page(np.concatenate([write("52"), apart, one, apart, write("63")], axis=1))).text == "52163"


@pytest.mark.parametrize("text", ["|234", "567|"])
def test_long_stroke_at_the_end_of_a_line_is_a_1(read, write, text):
    assert read(page(write(text, gap=6))).text == text.replace("|", "1")


def test_line_is_accepted_only_if_a_stroke_is_clearly_a_slash_or_a_1(write):
    model = repository.load(RELEASE, "mnist")
    found = to_number_page(picture(page(write("26/378", gap=6))), MAX_PIXELS)
    [line] = found.lines

    def read_with(beyond):
        signs = [sign._replace(properties=(1.0, beyond, beyond, *sign.properties[3:])) for sign in line.signs]
        found.lines = [line._replace(signs=signs)]
        reading = NumberReading(model, [found])
        output = model.classifier.classify(reading.images)
        [prediction] = reading.predictions(output)
        # Another version reads the same images, and a reading does not change by being used.
        assert reading.by(model).images is reading.images
        assert reading.read(output) == reading.by(model).read(output)
        return prediction.text, prediction.accepted

    low, high = -0.3, 0.3
    assert read_with(low) == ("261378", True)
    assert read_with(high) == ("26378", True)
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if read_with(middle)[0] == "261378" else (low, middle)
    assert not read_with(low)[1]
    assert not read_with(high)[1]


def test_signs_survive_the_way_between_processes(write):
    found = to_number_page(picture(page(write("3/4", gap=6))), MAX_PIXELS)
    assert found.lines[0].signs
    assert NumberPage.from_bytes(found.to_bytes()) == found


@pytest.mark.parametrize("side", range(4))
def test_dark_strip_along_the_border_is_no_digit(read, write, side):
    drawn = np.rot90(page(write("2026")), side).copy()
    drawn[: round(0.7 * len(drawn)), :7] = 40
    assert read(np.rot90(drawn, -side)).text == "2026"


def test_upright_1_at_the_border_of_a_tight_crop_is_read(read, write):
    ink = write("26")
    ink = ink[ink.any(axis=1)]
    one, gap = np.full((len(ink), 3), 255, np.uint8), np.zeros((len(ink), 5), np.uint8)
    assert read(255 - np.kron(np.concatenate([one, gap, ink, gap, one], axis=1), np.ones((4, 4)))).text == "1261"


def test_weak_digit_at_the_border_of_a_tight_crop_is_read(read, write):
    ink = np.concatenate([0.5 * write("2"), np.zeros((28, 5)), write("026378")], axis=1)
    ink = ink[:, np.flatnonzero((ink > 90).any(axis=0))[0] :]
    assert read(page(np.rint(ink).astype(np.uint8), margin=0)).text == "2026378"


def test_blank_page_is_empty(read):
    found = read(np.full((300, 400), 200))
    assert (found.text, found.accepted, found.reason, found.lines) == ("", False, "empty", [])


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (slice(None, None, 20), slice(0, 0)),
        (slice(None, None, 20), slice(None, None, 20)),
        (100, slice(0, 0)),
        (slice(0, 0), slice(150, 152)),
    ],
    ids=["ruled", "squared", "one line", "one upright line"],
)
def test_paper_with_printed_lines_and_no_number_is_read_without_an_error(read, rows, columns):
    paper = np.full((200, 300), 255)
    paper[rows] = paper[:, columns] = 90
    found = read(paper)
    assert (found.text, found.accepted, found.reason) == ("", False, "no digit")


@pytest.mark.parametrize("name", BLANK)
def test_photo_of_blank_paper_is_read_without_an_error(read, name):
    random = np.random.default_rng(2)
    for _ in range(4):
        found = read(blank(name, random, photo=True))
        # A fold of the paper, or what is left of a printed line, may be taken for a 1.
        assert set(found.text) <= set("1\n") or not found.accepted


@pytest.mark.parametrize(
    "texture",
    [
        np.random.default_rng(0).integers(0, 256, (600, 700)),
        np.indices((600, 700)).sum(axis=0) % 20 // 10 * 255,
        255 - 255 * (np.indices((900, 900)) % 30 < 14).all(axis=0),
        np.full((1, 1), 7),
        np.random.default_rng(0).integers(0, 256, (1, 3000)),
        np.random.default_rng(0).integers(0, 256, (3000, 2)),
    ],
)
def test_texture_is_no_number(read, texture):
    found = read(texture)
    assert not found.accepted
    assert found.reason in ("empty", "no digit")


def test_fine_texture_is_not_searched_for_lines(read, monkeypatch):
    """It has so many pieces that the search would take long."""
    monkeypatch.setattr("serving.pictures.number_form.find_lines", None)
    found = read(255 - 255 * (np.indices((900, 900)) % 6 < 3).all(axis=0))
    assert found.reason == "no digit"


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("height", [1, 30, 700])
def test_thinnest_stroke_is_read_without_an_error(read, width, height):
    drawn = np.full((800, 100), 255)
    drawn[40 : 40 + height, 50 : 50 + width] = 0
    assert read(drawn).text in ("", "1")


def test_line_of_one_pixel_beside_a_broad_stroke_is_read_without_an_error(read):
    drawn = np.full((100, 300), 255)
    drawn[20:60, 20:40] = 0
    drawn[40, 100:138] = 0
    drawn[31:51, 119] = 0
    assert read(drawn).lines


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("MAX_PARTS", 3, "more than 3 strokes and dots in its lines"),
        ("MAX_CANDIDATES", 3, "more than 3 groups of strokes"),
        ("MAX_CANDIDATE_PIXELS", 4000, "more than 4000 pixels in groups of strokes"),
        ("MAX_LINE_PIXELS", 5000, "more than 5000 pixels in the boxes around its lines"),
    ],
)
def test_work_on_a_picture_is_limited(write, monkeypatch, name, value, words):
    monkeypatch.setattr(work, name, value)
    with pytest.raises(InputTooLargeError, match=words):
        to_number_page(picture(page(write("2026378", gap=0)).astype(np.uint8)), MAX_PIXELS)


def test_candidates_are_not_much_higher_than_their_line():
    """The outline has 60 parts and hundreds of groups, nearly all of them as high as the page."""
    found = to_number_page(dict(high_lines())["outline around a bar"], MAX_PIXELS)
    [line] = found.lines
    assert len(line.parts) > 50
    assert max(part.height for part in line.parts) > 40
    assert len(found.images) == len(line.candidates) == 0


def test_pieces_at_the_border_are_not_compared_one_by_one(monkeypatch):
    """A page of 500 strokes and dots has 60,000 pairs of a weak stroke at the border and one inside."""
    drawn = np.full((1000, 1000), 255, np.uint8)
    for left in range(4, 990, 8):
        drawn[:40, left : left + 2] = drawn[-40:, left : left + 2] = 160
        drawn[480:520, left : left + 2] = 0
        drawn[530:534, left : left + 2] = 0
    counts = []
    monkeypatch.setattr(Piece, "height", property(lambda piece: counts.append(None) or piece.bottom - piece.top))
    list(find_lines(find_page_ink(drawn.astype(np.float32))))
    assert len(counts) < 40 * 500


def test_lines_as_high_as_the_page_are_limited_before_their_candidates():
    with pytest.raises(InputTooLargeError, match="in the boxes around its lines"):
        to_number_page(dict(high_lines())["bars at poles"], MAX_PIXELS)


def test_digit_that_is_twice_as_high_as_the_others_of_its_line_is_a_candidate(write):
    low = write("20263781")
    ink = np.concatenate([np.pad(low, [(14, 14), (0, 10)]), np.kron(write("4"), np.ones((2, 2), np.uint8))], axis=1)
    [line] = to_number_page(picture(page(ink)), MAX_PIXELS).lines
    assert 1.6 < max(candidate.height for candidate in line.candidates) < 3


@pytest.mark.parametrize("last", [1, 3])
def test_work_on_a_page_ends_when_its_check_fails(write, last):
    checks = []

    def check():
        checks.append(None)
        if len(checks) == last:
            raise DeadlineExceededError

    with pytest.raises(DeadlineExceededError):
        to_number_page(picture(page(write("2026378"))), MAX_PIXELS, check)
    assert len(checks) == last
