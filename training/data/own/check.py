"""Check a data set: what is in it, what is left out of the training and why, and what to do about it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from training.data.errors import DataError
from training.data.own.prepare import Prepared
from training.data.own.samples import MIN_CLASSES, class_names
from training.data.own.split import TEST, TRAIN, VALIDATION, parts_of
from training.reasons import first_names

# The command advises more pictures for a class with fewer training pictures than this.
FEW = 10
# It advises --balance if the largest class has this many times as many training pictures as the smallest.
UNEVEN = 10
# If this share of a class comes out as several pieces, its symbol consists of several pieces, like a colon.
OF_PIECES = 0.1
# If this share of a class loses small pieces, they are probably no dirt but dots of its symbol.
OF_DOTS = 0.25
DIVIDE = "divide the pictures yourself into train/ and test/"


@dataclass
class Check:
    """What was found in a data set."""

    labels: tuple[str, ...]
    kept: list[Prepared]
    """The samples to learn and to test with."""
    parts: list[str]
    """The part of each of them."""
    unreadable: list[Prepared] = field(default_factory=list)
    empty: list[Prepared] = field(default_factory=list)
    repeated: list[tuple[Prepared, Prepared]] = field(default_factory=list)
    """Samples that look the same as another of the same class, each with the one that is kept."""
    across: int = 0
    """How many of these would have been on another side of the split than the one that is kept."""
    disputed: list[list[Prepared]] = field(default_factory=list)
    """Samples that look the same but have different classes. None of them is kept."""
    torn: dict[str, list[str]] = field(default_factory=dict)
    """Groups that are in several parts, because the data set says so, with these parts."""
    several: dict[str, int] = field(default_factory=dict)
    """Kept samples in several pieces, by class."""
    lost_dots: dict[str, int] = field(default_factory=dict)
    """Kept samples without small pieces that may be dots of the symbol, by class."""
    bare: list[str] = field(default_factory=list)
    """Folders of classes that hold no picture."""
    stray: list[str] = field(default_factory=list)
    """Pictures beside the folders of the classes."""
    hidden: list[str] = field(default_factory=list)
    """Hidden folders with pictures beside the folders of the classes."""
    unlisted: list[str] = field(default_factory=list)
    """Pictures that the table of the data set does not name."""
    is_dotted: bool = False
    """Whether the pictures are prepared as ``dotted``."""

    @property
    def allows_several(self) -> bool:
        """Whether the service must accept pictures in several pieces: a symbol has some, or has dots."""
        return self.is_dotted or bool(self.of_pieces())

    def count(self, part: str) -> Counter[str]:
        """Return the number of kept samples of a part by class."""
        return Counter(each.sample.label for each, its in zip(self.kept, self.parts, strict=True) if its == part)

    def of_pieces(self) -> dict[str, str]:
        """Return the classes whose symbol has several pieces, each with the number of such samples and of all."""
        return self._frequent(self.several, OF_PIECES)

    def without_dots(self) -> dict[str, str]:
        """Return the classes whose symbol probably loses its dots, each with the number of such samples and of all."""
        return self._frequent(self.lost_dots, OF_DOTS)

    def _frequent(self, counts: dict[str, int], share: float) -> dict[str, str]:
        total = Counter(each.sample.label for each in self.kept)
        return {label: f"{count} of {total[label]}" for label, count in counts.items() if count >= share * total[label]}


def check(found: Sequence[Prepared], where: object, *, with_validation: bool = True, least: int = MIN_CLASSES) -> Check:
    """Return what was found, with what to learn from. Nothing is wrong with a sample that is kept.

    Args:
        least: the smallest number of classes.

    Raises:
        DataError: there are too few or too many classes.
    """
    result = Check(class_names([each.sample for each in found], where, least), [], [])
    parts = parts_of(found, with_validation=with_validation)
    looks: dict[bytes, list[tuple[Prepared, str]]] = defaultdict(list)
    for each, part in zip(found, parts, strict=True):
        if each.image is None:
            result.unreadable.append(each)
        elif each.is_empty:
            result.empty.append(each)
        else:
            looks[each.image.tobytes()].append((each, part))
    for same in looks.values():
        if len({each.sample.label for each, _ in same}) > 1:
            result.disputed.append([each for each, _ in same])
            continue
        # A picture that is also in the test set must not be learnt.
        same.sort(key=lambda pair: (TEST, VALIDATION, TRAIN).index(pair[1]))
        (first, part), *others = same
        result.kept.append(first)
        result.parts.append(part)
        result.repeated += [(each, first) for each, _ in others]
        result.across += sum(its != part for _, its in others)
    in_parts: dict[str, set[str]] = defaultdict(set)
    for each, part in zip(result.kept, result.parts, strict=True):
        in_parts[each.sample.group].add(part)
    result.torn = {group: sorted(its) for group, its in in_parts.items() if group and len(its) > 1}
    result.several = dict(Counter(each.sample.label for each in result.kept if each.is_several))
    result.lost_dots = dict(Counter(each.sample.label for each in result.kept if each.loses_dots))
    return result


def demand_trainable(
    result: Check, where: object, replayed: Sequence[str] = (), *, see: str = " (mnist-train check lists what is wrong)"
) -> None:
    """Check that a network can be trained and tested.

    Args:
        replayed: the classes of the replay data set.
        see: where there is more to read; ``mnist-train check`` has said it all already.

    Raises:
        DataError: a picture cannot be read, a class has nothing to learn from, or there is nothing to test with.
    """
    if result.unreadable:
        first, more = result.unreadable[0], len(result.unreadable) - 1
        if first.is_foreign:
            others = f"; {more} more cannot be read either{see}" if more else ""
        else:
            others = "; repair or remove " + (f"this and {more} more{see}" if more else "it")
        raise DataError(f"{where}/{first.sample.name}: {first.error}{others}")
    learnt = result.count(TRAIN)
    if missing := first_names([label for label in result.labels if not learnt[label] and label not in replayed]):
        raise DataError(
            f"{where}: no picture to learn from in {missing}; add pictures to it, remove it, or {DIVIDE}{see}"
        )
    if not learnt:
        raise DataError(f"{where}: no picture is left to learn from; add pictures{see}")
    if not result.count(TEST) and not replayed:
        raise DataError(f"{where}: no picture is left for the test set; add pictures, or {DIVIDE}")


def report_lines(result: Check, *, with_validation: bool = True) -> list[str]:
    """Return the findings as lines of text: a table of the classes, what is left out, and advice."""
    titles = {TRAIN: "train"} | ({VALIDATION: "valid."} if with_validation else {}) | {TEST: "test"}
    counts = {part: result.count(part) for part in titles}
    width = max(5, *map(len, result.labels))
    lines = [f"{'class':{width}}  " + " ".join(f"{title:>7}" for title in titles.values())]
    lines += [
        f"{label:{width}}  " + " ".join(f"{count[label]:7}" for count in counts.values()) for label in result.labels
    ]
    sums = " ".join(f"{count.total():7}" for count in counts.values())
    return [*lines, f"{'all':{width}}  {sums}", *findings(result, with_all_unreadable=True)]


def findings(result: Check, *, with_advice: bool = True, with_all_unreadable: bool = False) -> list[str]:
    """Return what is wrong or odd, one line each, with the way out.

    Args:
        with_advice: also say which classes have few pictures.
        with_all_unreadable: name each unreadable picture in a line of its own.
    """
    lines = []

    def say(what: str, which: Sequence[str], advice: str) -> None:
        if which:
            if len(which) == 1:
                what = what.replace("classes", "class", 1).replace("groups", "group", 1)
            lines.append(f"{len(which)} {what}: {first_names(which)}. {advice}")

    damaged, foreign = _by_reason(result, is_foreign=False), _by_reason(result, is_foreign=True)
    for reason, names in foreign.items():
        lines.append(f"{len(names)} unreadable: {reason}: {first_names(names)}.")
    if with_all_unreadable:
        for reason, names in damaged.items():
            lines += [f"{len(names)} unreadable: {reason}. Repair or remove:", *(f"  {name}" for name in names)]
    else:
        shown = [f"{name} ({reason})" for reason, names in damaged.items() for name in names]
        say("unreadable", shown, "Repair or remove them.")
    say("classes without a picture, left out", result.bare, "Add pictures, or remove the folder.")
    say("beside the class folders, left out", result.stray, "Move each into the folder of its class.")
    say(
        "hidden with pictures, left out",
        result.hidden,
        "If a folder is a class, give it a name without . or __ in front.",
    )
    say("not in labels.csv, left out", result.unlisted, "Add a line for each, or move them away.")
    say(
        "empty, left out",
        [each.sample.name for each in result.empty],
        "No ink was found. For photos and textures, use --prepare as-is.",
    )
    say(
        "disputed, left out",
        [" = ".join(f"{each.sample.name} ({each.sample.label})" for each in same) for same in result.disputed],
        "They look the same at 28x28 and have different classes. Keep one of each.",
    )
    kept = (
        f" {result.across} were on two sides of the split; the test or validation set keeps them."
        if result.across
        else ""
    )
    say(
        "repeated, left out",
        [f"{each.sample.name} = {first.sample.name}" for each, first in result.repeated],
        f"They look the same at 28x28.{kept}",
    )
    say(
        "groups in several parts",
        [f"{group} ({', '.join(its)})" for group, its in result.torn.items()],
        "So the test knows some of its groups. Give all pictures of a group the same split.",
    )
    say(
        "classes of several pieces",
        [f"{label} ({counts})" for label, counts in result.of_pieces().items()],
        "The service will accept pictures in several pieces. If each should show one piece, look at the contact sheet.",
    )
    if not result.allows_several and result.several:
        count = sum(result.several.values())
        lines.append(f"{count} in several pieces. The service will reject such pictures. Look at the contact sheet.")
    if not with_advice:
        return lines
    say(
        "classes that may lose dots",
        [f"{label} ({counts})" for label, counts in result.without_dots().items()],
        "Pieces as small as dirt are left out. If they belong to the symbol, like those of Ä, use --prepare dotted.",
    )
    alike: dict[str, list[str]] = defaultdict(list)
    for label in result.labels:
        alike[label.casefold()].append(label)
    say(
        "with names that differ only in case",
        [" = ".join(same) for same in alike.values() if len(same) > 1],
        "If they mean the same, give them one name. On a disk that ignores case, their folders are one.",
    )
    # Whether a class has enough pictures is known when all of them can be read.
    whole = sorted({*result.labels} - {each.sample.label for each in result.unreadable})
    learnt, tested = result.count(TRAIN), result.count(TEST)
    few = [label for label in whole if learnt[label] < FEW]
    say("classes with few pictures", few, f"Give each {FEW} or more to learn from.")
    say(
        "classes without a test picture",
        [label for label in whole if not tested[label]],
        f"Nothing is known about the accuracy there. Add pictures, or {DIVIDE}.",
    )
    sizes = [learnt[label] for label in whole]
    if sizes and max(sizes) > UNEVEN * max(1, min(sizes)):
        lines.append(
            f"uneven classes: from {min(sizes)} to {max(sizes)} pictures. --balance 1 shows each class equally often."
        )
    return lines


def _by_reason(result: Check, *, is_foreign: bool) -> dict[str, list[str]]:
    """Return the names of the unreadable pictures by reason."""
    names: dict[str, list[str]] = defaultdict(list)
    for each in result.unreadable:
        if each.is_foreign == is_foreign:
            names[str(each.error)].append(each.sample.name)
    return names
