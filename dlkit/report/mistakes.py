"""Which answers of a run are wrong, and why: the report's confusion matrix, mistakes, classes and explanations."""

from __future__ import annotations

from collections.abc import Sequence

from dlkit.plots.style import shorten
from dlkit.report import tables
from dlkit.report.data import Answer, Facts
from dlkit.report.examples import Explained, Look, Story
from dlkit.report.markup import Markup, clean, element, joined
from dlkit.report.tables import count, percent
from dlkit.specs import ImageSpec

GALLERY = 16  # most confident mistakes that stand on the page itself
CELLS_UP_TO = 40  # classes; of more the matrix is a picture, as cells are too small for counts
SHADES = 10
PAIRS = 30  # most frequent confusions, listed where the matrix is a picture
LABEL, LONG_LABEL = 16, 30  # characters of a class name


def cell_counts(facts: Facts) -> list[tuple[int, int, int]]:
    """(true, said, count) of every cell of the confusion matrix that is not empty."""
    if not facts.answers:
        return []
    rows, columns = facts.confusion.nonzero()
    counts = facts.confusion[rows, columns]
    return list(zip(rows.tolist(), columns.tolist(), counts.tolist(), strict=True))


def mistakes(story: Story) -> list[tuple[str, int, int, float, str, str]]:
    """(name, true, said, probability, picture, text) of each, the most confident first."""
    return [
        (_name(one), one.target, one.predicted, float(f"{one.probability:.5g}"), look.picture, clean(look.text))
        for one in story.facts.wrong
        for look in [story.looks.get(one.id, Look())]
    ]


def confusion(facts: Facts, id: str) -> Markup:
    """The matrix, and beside it the place where a cell's mistakes come to stand."""
    names, wrong = facts.spec.classes, len(facts.wrong)
    lead = f"Rows are the true classes, columns what the model said; {wrong:,} of {len(facts.answers):,} are wrong. "
    lead += "Choose a cell to see the mistakes in it." if wrong else "There is not one mistake."
    matrix, listed = tables.scrolled(_cells(facts)), None
    if len(names) > CELLS_UP_TO:
        label = f"Confusion matrix of {len(names)} classes; the most frequent confusions are listed beside it."
        canvas = element("canvas", role="img", aria_label=label)
        matrix, listed = element("div", canvas, element("p", class_="soft at"), class_="picture"), _pairs(facts)
    panel = element("div", listed, element("div", class_="chosen", aria_live="polite"), class_="panel")
    whole = element("div", matrix, panel, class_="matrix", data_run=id.removeprefix("r"))
    return joined([element("p", lead, class_="soft"), whole])


def _cells(facts: Facts) -> Markup:
    """The matrix as a table: a button in every cell that holds mistakes."""
    names = facts.spec.classes
    head = [element("th", shorten(name, LABEL), scope="col", title=name) for name in names]
    rows = [element("tr", element("td"), *head)]
    for true, counts in enumerate(facts.confusion.tolist()):
        cells = [_cell(names, true, said, number, sum(counts)) for said, number in enumerate(counts)]
        rows.append(element("tr", element("th", shorten(names[true], LABEL), scope="row", title=names[true]), *cells))
    caption = element("caption", "Confusion matrix", class_="unseen")
    kinds = ["cells", "upright" * (max(map(len, names)) > 3), "small" * (len(names) > 12)]
    return element("table", caption, *rows, class_=" ".join(filter(None, kinds)))


def _cell(names: Sequence[str], true: int, said: int, number: int, of: int) -> Markup:
    """Its shade is its share of the row, on a square-root scale, so that rare mistakes are seen."""
    shade = round(SHADES * (number / of) ** 0.5) if of else 0
    inner: object = number or ""
    if number and true != said:
        label = f"{number:,} of class {names[true]} taken for {names[said]}"
        inner = element("button", number, type="button", data_pair=f"{true},{said}", aria_label=label)
    return element("td", inner, class_=f"{'h' if true == said else 'w'}{shade}", data_count=number)


def _pairs(facts: Facts) -> Markup:
    """The most frequent confusions, a button each."""
    names = facts.spec.classes
    wrong = sorted((one for one in cell_counts(facts) if one[0] != one[1]), key=lambda one: -one[2])
    items = []
    for true, said, number in wrong[:PAIRS]:
        told = f"{shorten(names[true], LONG_LABEL)} taken for {shorten(names[said], LONG_LABEL)}"
        items.append(element("li", element("button", told, type="button", data_pair=f"{true},{said}"), f" {number:,}"))
    return element("ol", *items, class_="pairs")


def gallery(story: Story) -> Markup | None:
    """The most confident mistakes."""
    facts = story.facts
    shown = [answer for answer in facts.wrong if answer.id in story.looks] or facts.wrong
    cards = [_card(facts, answer, story.looks.get(answer.id, Look())) for answer in shown[:GALLERY]]
    kind = "gallery" if isinstance(facts.spec, ImageSpec) else "texts"
    return element("div", *cards, class_=kind) if cards else None


def _card(facts: Facts, answer: Answer, look: Look) -> Markup:
    true, said, name = facts.spec.classes[answer.target], facts.spec.classes[answer.predicted], _name(answer)
    picture = element("img", src=look.picture, alt=f"{name}: said {said}, is {true}") if look.picture else None
    text = element("blockquote", look.text) if look.text else None
    told = f"{shorten(said, LONG_LABEL)} at {100 * answer.probability:.1f}\u00a0%, is "
    truth = element("b", shorten(true, LONG_LABEL))
    caption = element("figcaption", told, truth, " ", element("small", name.rpartition("/")[2], title=name))
    return element("figure", picture, text, caption)


def _name(answer: Answer) -> str:
    return clean(answer.id) if isinstance(answer.id, str) else f"#{answer.id}"


def classes(facts: Facts) -> Markup:
    """How each class was told from the others."""
    names, confusion = facts.spec.classes, facts.confusion.copy()
    confusion[range(len(names)), range(len(names))] = 0
    rows = []
    for place, one in enumerate(facts.evaluation["classes"]):
        most, number = int(confusion[place].argmax()), int(confusion[place].max())
        taken = f"{shorten(names[most], LONG_LABEL)} ({number:,})" if number else ""
        rows.append([one["class"], one["precision"], one["recall"], one["f1"], one["support"], taken])
    heads = ["Class", "Precision", "Recall", "F1", "Samples", "Most often taken for"]
    return tables.values(heads, rows, [str, percent, percent, percent, count, str], sort=True)


def explanations(story: Story) -> Markup | None:
    """Where some answers came from, and what `dlkit explain` left in the run's folder."""
    parts = []
    if story.explained:
        told = "Orange speaks for the class that the model named, blue against it. Insertion is near 1 where the map "
        told += "is right about the network; a map is flagged where shuffled weights give much the same."
        parts.append(element("p", told, class_="soft"))
    for title, right in (("Wrong", False), ("Right", True)):
        chosen = [one for one in story.explained if one.right is right]
        if chosen:
            kind = "texts" if chosen[0].words else "gallery pairs"
            parts += [element("h4", title), element("div", *map(_explained, chosen), class_=kind)]
    if story.kept:
        pictures = [
            element("figure", element("img", src=one.picture, alt=one.caption), _told(one)) for one in story.kept
        ]
        parts += [element("h4", "From the run's explanations/"), element("div", *pictures, class_="kept")]
    return joined(parts) if parts else None


def _explained(one: Explained) -> Markup:
    if one.words:
        words = [element("span", word, class_=_shade(value), title=f"{value:+.2f}") for word, value in one.words]
        return element("figure", element("blockquote", *(part for word in words for part in (word, " "))), _told(one))
    image = element("img", src=one.original, alt=f"The image: {one.caption}")
    over = element("img", src=one.picture, alt=f"Where the answer comes from: {one.note}")
    return element("figure", element("span", image, over, class_="two"), _told(one))


def _shade(value: float) -> str | None:
    """The class of a word's colour: w for what speaks for the answer, h against it, as in the matrix."""
    shade = round(SHADES / 2 * abs(value))
    return f"{'w' if value > 0 else 'h'}{shade}" if shade else None


def _told(one: Explained) -> Markup:
    return element("figcaption", one.caption, " ", element("small", one.note))
