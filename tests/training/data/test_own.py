"""The user's own data: every layout, what is left out, the split, and one-line errors that name the file."""

from __future__ import annotations

import csv
import gzip
import re
import struct
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from serving.pictures.prepare import prepare
from tests.support import mode_0
from training.data.errors import DataError
from training.data.load import Selection, load_data
from training.data.own import arrays as arrays_module
from training.data.own import npz, saved
from training.data.own.arrays import from_arrays
from training.data.own.check import check, demand_trainable, findings, report_lines
from training.data.own.cli import check_readable
from training.data.own.inspection import inspect, model_name
from training.data.own.layouts import find
from training.data.own.load import load_own
from training.data.own.prepare import prepare_all
from training.data.own.sheet import to_png
from training.data.own.split import parts_of

CLASSES = ("circle", "cross", "é")


def mark(kind, number, side=40):
    """A picture of a circle, a cross or a stroke, dark on white. Each number gives another one."""
    image = Image.new("L", (side, side + number % 5), 255)
    draw = ImageDraw.Draw(image)
    a, b = 5 + number % 7, side - 6 - number % 3
    if kind == "circle":
        draw.ellipse((a, 6, b, b - number % 9), outline=0, width=3)
    elif kind == "cross":
        draw.line((a, 6, b, b), 0, 3)
        draw.line((a, b, b - number % 9, 6), 0, 3)
    else:
        draw.line((a, 6, a + number % 11, b), 0, 4)
    return image


def folders(place, count=12, names=CLASSES):
    for label in names:
        (place / label).mkdir(parents=True)
        for number in range(count):
            mark(label, number).save(place / label / f"{number}.png")
    return place


def table(place):
    place.mkdir()
    with (place / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "group"])
        for label in CLASSES:
            for number in range(12):
                mark(label, number).save(place / f"{label} {number}.png")
                writer.writerow([f"{label} {number}.png", label, f"writer {number}"])
    return place


def archive(place):
    place.mkdir()
    np.savez(place / "any.npz", images=arrays(), labels=np.repeat(CLASSES, 12))
    return place


def arrays():
    return np.stack([np.asarray(mark(label, n).resize((32, 32))) for label in CLASSES for n in range(12)])


def idx(place):
    place.mkdir()
    images = arrays()
    head = struct.pack(">I3I", 0x803, *images.shape)
    (place / "marks-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + images.tobytes()))
    labels = np.repeat(np.arange(3, dtype=np.uint8), 12)
    (place / "marks-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, len(labels)) + labels.tobytes())
    (place / "classes.txt").write_text("\n".join(CLASSES) + "\n", "utf-8")
    return place


@pytest.mark.parametrize("name", ["validation_{}", "val_{}", "{}_val"])
def test_arrays_of_the_validation_set_have_several_names(tmp_path, name):
    images, labels = ("x", "y") if name.startswith("{}") else ("images", "labels")
    chosen = {name.format(images): arrays()[::2], name.format(labels): np.repeat(CLASSES, 6)}
    np.savez(tmp_path / "marks.npz", x_train=arrays()[1::2], y_train=np.repeat(CLASSES, 6), **chosen)
    assert Counter(sample.part for sample in find(tmp_path / "marks.npz")) == {"train": 18, "validation": 18}


@pytest.mark.parametrize("layout", [folders, table, archive, idx])
def test_every_layout_gives_the_same_classes_by_name(layout, tmp_path):
    splits = load_data(str(layout(tmp_path / "marks")), Selection(validation=1))
    assert (splits.name, splits.labels, splits.is_own) == ("marks", CLASSES, True)
    parts = splits.train, splits.validation, splits.test
    # Some marks look the same at 28x28. The other copies are left out.
    assert 25 < sum(map(len, parts)) <= 36
    assert all(len(part) and part.images.shape[1:] == (28, 28) for part in (splits.train, splits.test))


def divided(place):
    for part, numbers in (("train", range(8)), ("test", range(8, 11))):
        for label in CLASSES:
            (place / part / label).mkdir(parents=True)
            for number in numbers:
                mark(label, number).save(place / part / label / f"{number}.png")
    return place


def test_folders_named_train_and_test_divide_the_data(tmp_path):
    splits = load_own(divided(tmp_path), "symbol")
    assert splits.labels == CLASSES
    assert len(splits.test) == 9
    assert len(splits.validation) == 0


def test_folder_beside_train_and_test_makes_no_classes_of_them(tmp_path):
    notes = divided(tmp_path) / "notes"
    notes.mkdir()
    (notes / "todo.txt").touch()
    found = inspect(tmp_path, "symbol", with_validation=False)
    assert (found.labels, found.bare) == (CLASSES, ["notes"])
    assert found.count("test").total() == 9
    mark("cross", 1).save(notes / "1.png")
    with pytest.raises(DataError, match="notes: lies beside test/ and train/, which divide the data set; move it away"):
        find(tmp_path)


def test_linked_folders_of_a_class_are_read_once(tmp_path):
    place = folders(tmp_path / "marks", 3)
    (tmp_path / "more").mkdir()
    mark("cross", 7).save(tmp_path / "more" / "7.png")
    for name, target in (("more", tmp_path / "more"), ("again", tmp_path / "more"), ("up", place), ("self", ".")):
        (place / "cross" / name).symlink_to(target)
    names = [sample.name for sample in find(place) if sample.label == "cross"]
    assert names == ["cross/0.png", "cross/1.png", "cross/2.png", "cross/again/7.png"]


def test_texts_may_be_bytes(tmp_path):
    images, labels = arrays(), np.repeat(np.arange(3), 12)
    encoded = np.array([name.encode() for name in CLASSES])
    writers = np.array([b"anna"] * len(images))
    for named in ({"labels": labels, "names": encoded}, {"labels": encoded[labels]}):
        np.savez(tmp_path / "x.npz", images=images, groups=writers, **named)
        found = find(tmp_path / "x.npz")
        assert {sample.label for sample in found} == set(CLASSES)
        assert {sample.group for sample in found} == {"anna"}
    np.savez(tmp_path / "x.npz", images=images, labels=labels, names=np.array([b"\xff", b"b", b"c"]))
    with pytest.raises(DataError, match=r"x\.npz: names: has a text that is not UTF-8: .*; write texts"):
        find(tmp_path / "x.npz")


def test_class_may_be_called_train(tmp_path):
    assert inspect(folders(tmp_path, names=("bus", "train")), "symbol", with_validation=False).labels == (
        "bus",
        "train",
    )


def test_network_learns_from_what_the_service_prepares(tmp_path):
    place = folders(tmp_path / "marks")
    for how in ("symbol", "as-is"):
        for each in prepare_all(find(place)[:5], how):
            content = (place / each.sample.name).read_bytes()
            np.testing.assert_array_equal(each.image, prepare(content, how).image)


def test_picture_stays_on_its_side_when_the_folder_grows(tmp_path):
    place = folders(tmp_path / "marks", 6)
    before = sides(place)
    for label in CLASSES:
        for number in range(6, 12):
            mark(label, number).save(place / label / f"{number}.png")
    assert before.items() <= sides(place).items()
    assert set(sides(place).values()) == {"train", "validation", "test"}


def sides(place):
    found = prepare_all(find(place), "symbol")
    return {each.sample.name: part for each, part in zip(found, parts_of(found, with_validation=True), strict=True)}


def test_writer_stays_on_one_side(tmp_path):
    found = prepare_all(find(table(tmp_path / "marks")), "symbol")
    by_writer = {}
    for each, part in zip(found, parts_of(found, with_validation=True), strict=True):
        by_writer.setdefault(each.sample.group, set()).add(part)
    assert len(by_writer) == 12
    assert all(len(parts) == 1 for parts in by_writer.values())


def test_rows_without_a_split_follow_their_writer(tmp_path):
    place = table(tmp_path / "marks")
    with (place / "labels.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    # One row of every other writer names a part.
    split = {"writer 0": "test", "writer 2": "train", "writer 4": "validation"}
    with (place / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([[*header, "split"], *([*row, split.pop(row[2], "")] for row in rows)])
    found = inspect(place, "symbol", with_validation=True)
    by_writer = {}
    for each, part in zip(found.kept, found.parts, strict=True):
        by_writer.setdefault(each.sample.group, set()).add(part)
    assert by_writer.pop("writer 0") == {"test"}
    assert by_writer.pop("writer 4") == {"validation"}
    # The hash divides only what no part was named for, and there are a test and a validation set.
    assert set(map(frozenset, by_writer.values())) == {frozenset({"train"})}
    assert found.torn == {}


def test_writer_in_several_parts_is_told():
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
    samples = from_arrays("x", images, np.array(["a", "b"] * 2), groups=np.array(["anna"] * 3 + ["ben"]))
    parts = ("train", "test", "", "")
    divided = [each._replace(part=part) for each, part in zip(samples, parts, strict=True)]
    found = check(prepare_all(divided, "as-is"), "x", with_validation=False)
    assert found.parts == ["train", "test", "train", "train"]
    told = "1 group in several parts: anna (test, train). So the test knows some of its groups. Give all"
    assert any(line.startswith(told) for line in findings(found))


def test_check_finds_what_is_wrong_with_pictures(tmp_path):
    place = folders(tmp_path / "marks", 12)
    mark("circle", 0).save(place / "circle" / "copy.bmp")
    mark("circle", 1).save(place / "cross" / "wrong.png")
    Image.new("L", (30, 30), 255).save(place / "é" / "blank.png")
    (place / "é" / "broken.png").write_bytes((place / "é" / "0.png").read_bytes()[:60])
    (place / "é" / "notes.txt").write_text("not a picture")
    (place / ".hidden").mkdir()
    found = inspect(place, "symbol", with_validation=True)
    names = [each.sample.name for each in found.unreadable + found.empty]
    assert names == ["é/broken.png", "é/blank.png"]
    assert {each.sample.name for each, _ in found.repeated} & {"circle/copy.bmp", "circle/0.png"}
    [disputed] = found.disputed
    assert {"circle/1.png", "cross/wrong.png"} <= {each.sample.name for each in disputed}
    assert not any(each.sample.name in ("circle/1.png", "cross/wrong.png") for each in found.kept)
    text = "\n".join(report_lines(found))
    for word in ("unreadable", "empty", "disputed", "repeated", "few pictures"):
        assert word in text
    assert "1 unreadable: " in text
    assert "\n  é/broken.png\n" in text
    with pytest.raises(DataError, match=r"é/broken\.png: .*damaged.*; repair or remove it$"):
        demand_trainable(found, place)


def test_copy_in_the_validation_set_is_not_said_to_be_in_the_test_set(tmp_path):
    for part, numbers in (("train", range(8)), ("validation", (1, 9)), ("test", (2, 10))):
        for label in CLASSES:
            (tmp_path / part / label).mkdir(parents=True)
            for number in numbers:
                mark(label, number).save(tmp_path / part / label / f"{number}.png")
    found = inspect(tmp_path, "symbol", with_validation=True)
    kept = {first.sample.part for _, first in found.repeated}
    assert {"validation", "test"} <= kept
    assert "on two sides of the split; the test or validation set keeps them." in "\n".join(findings(found))


def test_table_may_have_line_breaks_that_are_those_of_other_programs(tmp_path):
    place = table(tmp_path / "marks")
    name = "circle\x85 0\u2028.png"
    (place / "circle 0.png").rename(place / name)
    rows = f'path,label,note\n{name},a,"two\nlines"\ncross 0.png,b,\n'
    (place / "labels.csv").write_text(rows, "utf-8")
    assert [(sample.name, sample.label) for sample in find(place)] == [(name, "a"), ("cross 0.png", "b")]
    (place / "labels.csv").write_text(f"{rows}none.png,b,\n", "utf-8")
    with pytest.raises(DataError, match=r"labels\.csv line 5: there is no file"):
        list(find(place))


def test_check_without_a_validation_set_has_no_column_for_it(tmp_path):
    found = inspect(folders(tmp_path / "marks"), "symbol", with_validation=False)
    assert report_lines(found, with_validation=False)[0].split() == ["class", "train", "test"]
    assert report_lines(found)[0].split() == ["class", "train", "valid.", "test"]


def test_check_lists_every_unreadable_picture_below_its_reason(tmp_path):
    place = folders(tmp_path / "marks")
    for number in range(9):
        (place / "cross" / f"{number}.png").write_bytes(b"" if number else b"text")
    found = inspect(place, "symbol", with_validation=True)
    lines = report_lines(found)
    assert [f"  cross/{number}.png" for number in range(1, 9)] == lines[lines.index("  cross/1.png") :][:8]
    assert [line.split(":")[0] for line in lines if "unreadable" in line] == ["1 unreadable", "8 unreadable"]
    assert sum("unreadable" in line for line in findings(found)) == 1
    with pytest.raises(DataError, match=r"this and 8 more .mnist-train check lists"):
        demand_trainable(found, place)
    with pytest.raises(DataError, match=r"this and 8 more$"):
        demand_trainable(found, place, see="")


def test_pictures_in_a_format_that_is_not_read_are_to_be_converted(tmp_path):
    place = folders(tmp_path / "marks", 40)
    for path in (place / "cross").iterdir():
        Image.open(path).save(path.with_suffix(".tiff"))
        path.unlink()
    found = inspect(place, "symbol", with_validation=True)
    text = "\n".join(report_lines(found))
    assert text.count("cross/") == 5
    advice = r"40 unreadable: a TIFF is not read here; convert it to PNG or JPEG: cross/0\.tiff, .* and 35 more\."
    assert re.search(advice, text)
    assert re.search(advice, "\n".join(findings(found)))
    # What the class lacks is known only then.
    assert "cross" not in text[text.index(" and 35 more") :]
    with pytest.raises(DataError, match=r"tiff: a TIFF is not .* PNG or JPEG; 39 more cannot be read either$"):
        demand_trainable(found, place, see="")


@pytest.mark.parametrize(("is_divided", "stray"), [(False, "stray.png"), (True, "stray.png"), (False, "scan.JFIF")])
def test_picture_beside_the_folders_of_the_classes_is_told(tmp_path, is_divided, stray):
    place = folders(tmp_path / ("train" if is_divided else ""))
    for name in (stray, "notes.txt", "png", "letters-classes.png", ".hidden.png"):
        (place / name).write_bytes(b"")
    found = inspect(tmp_path, "symbol", with_validation=True)
    assert len(found.labels) == 3
    name = f"train/{stray}" if is_divided else stray
    assert f"1 beside the class folders, left out: {name}. Move each into the folder of its class." in findings(found)


def test_folder_around_the_data_set_is_told(tmp_path):
    place = folders(tmp_path / "unpacked" / "letters", 1)
    with pytest.raises(DataError, match=rf"has 1 class \(letters\): .* are the classes, name {re.escape(str(place))}$"):
        inspect(place.parent, "symbol", with_validation=True)


@pytest.mark.parametrize("is_divided", [False, True])
def test_hidden_folder_with_pictures_is_told(tmp_path, is_divided):
    place = folders(tmp_path / ("train" if is_divided else ""))
    folders(place, 1, ["...", "__"])
    for name in ("__MACOSX/._1.png", ".git/notes.txt", ".disputed/A/1.png"):
        (place / name).parent.mkdir(parents=True)
        (place / name).touch()
    found = inspect(tmp_path, "symbol", with_validation=True)
    names = ", ".join(f"train/{name}" if is_divided else name for name in ("...", "__"))
    line = (
        f"2 hidden with pictures, left out: {names}. If a folder is a class, give it a name without . or __ in front."
    )
    assert line in findings(found)


def test_picture_that_the_table_does_not_name_is_told(tmp_path):
    place = folders(table(tmp_path / "marks") / "more", 2, ["cross"])
    for name in ("marks-classes.png", ".hidden.png", "notes.txt"):
        (place.parent / name).touch()
    found = inspect(tmp_path / "marks", "symbol", with_validation=True)
    line = "2 not in labels.csv, left out: more/cross/0.png, more/cross/1.png. Add a line for each, or move them away."
    assert line in findings(found)
    assert not inspect(place, "symbol", with_validation=True, least=1).unlisted


def test_names_that_differ_only_in_case_are_told(tmp_path):
    drawn = np.random.default_rng(0).integers(0, 256, (6, 8, 8), np.uint8)
    np.savez(tmp_path / "letters.npz", images=drawn, labels=np.array(["Straße", "STRASSE", "a", "A", "b", "C"]))
    found = inspect(tmp_path / "letters.npz", "as-is", with_validation=True)
    told = [line for line in findings(found) if "case" in line]
    assert [line.partition(". ")[0] for line in told] == [
        "2 with names that differ only in case: A = a, STRASSE = Straße"
    ]


def test_class_without_a_picture_is_told(tmp_path):
    place = folders(tmp_path / "marks")
    (place / "star" / "old").mkdir(parents=True)
    (place / "star" / "notes.txt").touch()
    (place / "tick").mkdir()
    found = inspect(place, "symbol", with_validation=True)
    assert "2 classes without a picture, left out: star, tick. Add pictures, or remove the folder." in findings(found)
    (place / "tick").rmdir()
    found = inspect(place, "symbol", with_validation=True)
    assert any(line.startswith("1 class without a picture, left out: star.") for line in findings(found))
    assert not inspect(table(tmp_path / "table"), "symbol", with_validation=True).bare


@pytest.mark.parametrize("separator", ";\t")
def test_table_of_a_spreadsheet_is_read(separator, tmp_path):
    place = table(tmp_path / "marks")
    text = (place / "labels.csv").read_text("utf-8")
    (place / "labels.csv").write_text(text.replace(",", separator), "utf-8")
    assert len(find(place)) == 36


def dotted(number):
    image = Image.new("L", (160, 160), 255)
    draw = ImageDraw.Draw(image)
    draw.ellipse((50 - number, 60, 110, 120), outline=0, width=9)
    for x in (66, 94):
        draw.ellipse((x - 4, 44, x + 4, 52), fill=0)
    return image


def test_lost_dots_are_told_and_kept_with_prepare_dotted(tmp_path):
    place = folders(tmp_path / "letters", names=("circle", "cross"))
    (place / "ö").mkdir()
    for number in range(12):
        dotted(number).save(place / "ö" / f"{number}.png")
    [line] = [line for line in findings(inspect(place, "symbol", with_validation=True)) if "dots" in line]
    assert line.startswith("1 class that may lose dots: ö (12 of 12). ")
    assert line.endswith("use --prepare dotted.")
    assert not any("dots" in line for line in findings(inspect(place, "dotted", with_validation=True)))
    splits = load_own(place, "dotted", validation=1)
    assert (splits.prepare, splits.several) == ("dotted", "allowed")
    without = load_own(place, "symbol", validation=1)
    assert without.several == "rejected"
    assert not np.array_equal(splits.train.images[-12:].numpy(), without.train.images[-12:].numpy())


def test_symbol_of_several_pieces_is_allowed(tmp_path):
    place = folders(tmp_path / "marks")
    (place / "colon").mkdir()
    for number in range(12):
        image = Image.new("L", (40, 60), 255)
        for top in (8 + number % 5, 40):
            ImageDraw.Draw(image).ellipse((14, top, 24 + number % 4, top + 10 + number % 3), fill=0)
        image.save(place / "colon" / f"{number}.png")
    splits = load_own(place, "symbol")
    assert splits.several == "allowed"
    assert load_own(folders(tmp_path / "others"), "symbol").several == "rejected"


def test_uneven_classes_get_advice():
    class_sizes = {"a": 30, "b": 2}
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (32, 28, 28), dtype=np.uint8)
    labels = np.repeat(list(class_sizes), list(class_sizes.values()))
    found = check(prepare_all(from_arrays("x", images, labels), "as-is"), "x")
    assert any("--balance 1" in line for line in findings(found))
    assert Counter(each.sample.label for each in found.kept) == class_sizes


def test_contact_sheet_has_a_row_for_each_class(tmp_path):
    found = inspect(folders(tmp_path / "marks"), "symbol", with_validation=True)
    (tmp_path / "sheet.png").write_bytes(to_png(found))
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height > 3 * 56
        assert sheet.width > 8 * 56


def test_run_folder_keeps_the_images(tmp_path):
    splits = load_own(folders(tmp_path / "marks"), "as-is", validation=1)
    (tmp_path / "data.npz").write_bytes(splits.files["data.npz"])
    again = saved.load(tmp_path / "data.npz")
    assert (again.digests, again.labels, again.prepare) == (splits.digests, CLASSES, "as-is")
    (tmp_path / "data.npz").write_bytes(splits.files["data.npz"][:500])
    with pytest.raises(DataError, match=r"data\.npz: is not a readable .npz file: .* train again"):
        saved.load(tmp_path / "data.npz")


def test_first_and_last_images_are_of_all_classes(tmp_path):
    """Own data is sorted by class, and calibration and export take the first or last images of a part."""
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (900, 28, 28), np.uint8), np.repeat(["a", "b", "c"], 300)
    np.savez(tmp_path / "noise.npz", images=images, labels=labels)
    splits = load_own(tmp_path / "noise.npz", "as-is", validation=1)
    for part in (splits.train, splits.validation, splits.test):
        assert set(part.labels[:40].tolist()) == set(part.labels[-40:].tolist()) == {0, 1, 2}
    # The digest is that of the sorted images, as before, and the run folder gives the same order again.
    (tmp_path / "data.npz").write_bytes(splits.files["data.npz"])
    again = saved.load(tmp_path / "data.npz")
    assert again.digests == splits.digests
    assert splits.train.images.equal(again.train.images)
    train = np.load(tmp_path / "data.npz")["train_labels"]
    assert train.tolist() == sorted(train)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("letters", "letters"),
        ("Meine Schrift!", "Meine-Schrift"),
        ("Übung ä", "Ubung-a"),
        ("日本", "日本"),
        ("中文 2", "中文 2"),
        ("!", "own"),
    ],
)
def test_data_set_gives_its_model_a_name(name, model, tmp_path):
    (tmp_path / name).mkdir()
    assert model_name(tmp_path / name) == model


def rewritten(name, text):
    def change(place):
        (table(place) / name).write_text(text)

    return change


def with_array(**changed):
    def change(place):
        place.mkdir()
        images = changed.pop("images", arrays())
        np.savez(place / "x.npz", images=images, **{"labels": np.repeat(CLASSES, 12)} | changed)

    return change


def with_classes(content):
    def change(place):
        idx(place)
        (place / "classes.txt").write_bytes(content)

    return change


def with_entry(header, size=0, **entry):
    """Return a change that adds an .npz file whose images begin with ``header``, and have ``size`` zeros after it."""

    def change(place):
        place.mkdir()
        with zipfile.ZipFile(place / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("images.npy", header + bytes(size))
        content = bytearray((place / "x.npz").read_bytes())
        for offset, value in entry.items():  # In the directory of the zip file: its flags and its compression.
            content[content.rindex(b"PK\1\2") + {"flags": 8, "compression": 10}[offset]] = value
        (place / "x.npz").write_bytes(content)

    return change


def npy_header(shape, version=1):
    text = repr({"descr": "|u1", "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(2 if version == 1 else 4, "little") + text


WRONG = {
    "a shape larger than the file": (with_entry(npy_header((10**9, 28, 28)), 784), "needs 784000000000 bytes, not"),
    "a negative shape": (with_entry(npy_header((-1, 28, 28)), 784), "not a readable .npz file"),
    "a long header": (with_entry(b"\x93NUMPY\2\0\xff\xff\xff\x7f"), "header of an array has more than 10000 bytes"),
    "a later version": (with_entry(npy_header((1,), 3)), "must be .1, 0. or"),
    "an array that is no array": (with_entry(b"x"), "not a readable .npz file"),
    "an encrypted array": (with_entry(npy_header((1,)), flags=1), "is encrypted"),
    "an unknown compression": (with_entry(npy_header((1,)), compression=99), "compression method"),
    "nothing there": (lambda place: None, "does not exist"),
    "empty folder": (lambda place: place.mkdir(), "holds no pictures in folders"),
    "one class": (lambda place: folders(place, 3, ("circle",)), r"has 1 class \(circle\): must have 2 to 1000"),
    "a table without labels": (
        rewritten("labels.csv", "path,class\n"),
        r"line .path,class. must name the columns",
    ),
    "a missing picture": (rewritten("labels.csv", "path,label\nx.png,a\n"), "line 2: there is no file"),
    "a path that leaves the folder": (rewritten("labels.csv", "path,label\n../x.png,a\n"), "line 2: .*must be below"),
    "an empty class": (rewritten("labels.csv", "path,label\ncircle 0.png,\n"), "line 2: the class name ''"),
    "two classes": (rewritten("labels.csv", "path,label\né 0.png,a\né 0.png,b\n"), "keep one of the lines"),
    "a row with too few cells": (rewritten("labels.csv", "path,label\ncircle 0.png\n"), "line 2: has 1 columns"),
    "an unknown split": (rewritten("labels.csv", "path,label,split\né 0.png,a,dev\n"), "must be train, validation"),
    "a long class name": (rewritten("labels.csv", f"path,label\né 0.png,{'x' * 200}\n"), "1 to 128 characters"),
    "pixels over 255": (with_array(images=arrays() * 2.0), "must be in 0..255"),
    "a number missing": (with_array(labels=np.arange(3)), "36 texts or whole numbers"),
    "labels that are floats": (with_array(labels=np.zeros(36)), "36 texts or whole numbers"),
    "objects": (
        with_array(labels=np.array(["a"] * 36, object)),
        r"x.npz: labels holds Python objects: .* labels.astype",
    ),
    "classes in another encoding": (with_classes(b"\xe9\n"), r"classes.txt: is not a text in UTF-8"),
    "other arrays": (
        lambda place: place.mkdir() or np.savez(place / "x.npz", **dict.fromkeys("abc", 1)),
        "has a, b, c",
    ),
    "groups that are one text": (with_array(groups=np.array("x")), r"groups have the shape \[\]: must be 36 texts"),
    "groups of two columns": (with_array(groups=np.zeros((36, 2))), r"shape \[36, 2\]: must be 36 texts"),
    "too few names": (
        with_array(names=np.array(["a"]), labels=np.arange(36)),
        "from 0 to 0; other classes have no name",
    ),
    "a table of no picture": (rewritten("labels.csv", "path,label\n\n"), "labels.csv: names no picture; add a line"),
    "flat images": (with_array(images=np.zeros((36, 784), np.uint8)), r"must be \[N, H, W\]"),
}


def test_arrays_that_expand_to_more_than_the_limit_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(npz, "MAX_ARRAY_BYTES", 36 * 784 + 10)
    with_entry(npy_header((37, 28, 28)), 37 * 784)(tmp_path / "marks")
    with pytest.raises(DataError, match="must be at most 28234"):
        load_own(tmp_path / "marks", "symbol")
    monkeypatch.setattr(arrays_module, "MAX_ARRAY_BYTES", 10)
    idx = tmp_path / "a-images-idx3-ubyte.gz"
    idx.write_bytes(gzip.compress(b"\0\0\10\3" + np.array([2, 28, 28], ">u4").tobytes() + bytes(1568)))
    with pytest.raises(DataError, match="must be at most 10 bytes"):
        arrays_module.read_idx(idx, 3)


@pytest.mark.parametrize("case", WRONG)
def test_wrong_data_is_one_line_with_the_file_and_the_rule(case, tmp_path):
    change, message = WRONG[case]
    change(tmp_path / "marks")
    with pytest.raises(DataError, match=message) as error:
        load_own(tmp_path / "marks", "symbol")
    assert "\n" not in str(error.value)
    assert "marks" in str(error.value) or "x.npz" in str(error.value)


@pytest.mark.parametrize("name", [".", "letters"])
def test_folder_that_may_not_be_read_is_named(name):
    with tempfile.TemporaryDirectory() as folder:  # Another user may read it, unlike tmp_path.
        Path(folder).chmod(0o755)
        place = Path(folder) / name
        place.mkdir(exist_ok=True)
        with mode_0(Path(folder)), pytest.raises(DataError, match=f"^{place}: cannot be read: Permission denied; name"):
            check_readable(str(place))
