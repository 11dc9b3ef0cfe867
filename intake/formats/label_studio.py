"""Label Studio's exports of tasks that were compared with its Pairwise tag: JSON, JSON-MIN and CSV.

Each annotation becomes one judgement, by its annotator; there is no tie. ``selected`` is "left" or "right", and the
export does not say which image was on which side: its ``from_name`` and ``to_name`` are both the tag's own name. So the
sides come from the labelling configuration, if the archive has it; from ``to_name``, if it lists two fields, as exports
by other tools do; or from the names of the fields (``image1`` and ``image2``, ``left`` and ``right``). Otherwise the
row is refused: guessing could swap every preference.
"""

from __future__ import annotations

import functools
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from intake.archives.entries import Entry
from intake.errors import IntakeError
from intake.findings import Finding, printable
from intake.formats.columns import PROMPTS, Sides, by_plain, exact, image_pair, named, paired
from intake.formats.comparisons import SIDES, more_than_two
from intake.formats.judgement import Fields, Judgement, Layout, Names, compared, row_finding
from intake.values import text_of

SELECTED = ("left", "right")
_CONFIGURATION_BYTES = 2**20
_SHOWN = re.compile(r"^/data/|^data:image/|://|\.(png|jpe?g|webp|jfif|gif|bmp|tiff?|avif)$", re.IGNORECASE)  # an image
_OF_ANNOTATION = ("annotation_id", "annotator", "created_at", "updated_at", "lead_time", "agreement", "id")


@dataclass(frozen=True)
class Labelling:
    """What a labelling configuration says: the fields on the two sides of each Pairwise tag, and those of texts.
    ``None`` are the sides of a tag of which two configurations say different things."""

    sides: Mapping[str, Sides | None] = field(default_factory=dict)
    texts: tuple[str, ...] = ()


def labelling_of(files: Mapping[str, Entry]) -> Labelling:
    """The labelling configuration in the archive: an XML file, or ``label_config`` in a project's JSON."""
    sides: dict[str, Sides | None] = {}
    texts: list[str] = []
    for name in sorted(files):
        if files[name].size > _CONFIGURATION_BYTES or not name.casefold().endswith((".xml", ".html", ".txt", ".json")):
            continue
        try:
            content = files[name].read().decode("utf-8-sig")
        except (IntakeError, UnicodeDecodeError):
            continue
        for found in _configurations(content):
            sides |= {tag: pair if sides.get(tag, pair) == pair else None for tag, pair in found.sides.items()}
            texts += found.texts
    return Labelling(sides, tuple(texts))


def _configurations(content: str) -> Iterator[Labelling]:
    if content.lstrip().startswith("<"):
        yield configuration(content)
    elif '"label_config"' in content:
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            return
        for project in document if isinstance(document, list) else [document]:
            text = project.get("label_config") if isinstance(project, Mapping) else None
            if isinstance(text, str):
                yield configuration(text)


def configuration(text: str) -> Labelling:
    """Nothing, if the text is no labelling configuration. One that declares entities is not parsed."""
    if "Pairwise" not in text or "<!" in text.replace("<!--", ""):
        return Labelling()
    try:
        tags = list(ElementTree.fromstring(text.strip()).iter())
    except ElementTree.ParseError:
        return Labelling()
    shown = {
        tag.get("name", ""): tag.get("value", "").removeprefix("$") for tag in tags if tag.get("value", "")[:1] == "$"
    }
    sides: dict[str, Sides | None] = {}
    for tag in tags:
        fields = [shown.get(name) for name in _names(tag.get("toName"))]
        if tag.tag == "Pairwise" and len(fields) == 2 and fields[0] and fields[1]:
            sides[tag.get("name", "")] = fields[0], fields[1]
    texts = tuple(tag.get("value", "").removeprefix("$") for tag in tags if tag.tag == "Text")
    return Labelling(sides, texts)


def with_labelling(layout: Layout, files: Mapping[str, Entry]) -> Layout:
    """The layout, reading by the labelling configuration that the archive holds."""
    translations = {LABEL_STUDIO.name: _translate, SHORT_LABEL_STUDIO.name: _translate_short}
    if layout.name not in translations:
        return layout
    return replace(layout, translate=functools.partial(translations[layout.name], labelling_of(files)))


def _translate(
    labelling: Labelling, number: int, fields: Fields, file: str, _names_of: Names
) -> Iterator[Judgement | Finding]:
    data, annotations = fields.get("data"), fields.get("annotations", fields.get("completions"))
    if not isinstance(data, Mapping) or not isinstance(annotations, list):
        yield row_finding(file, number, "data has to be an object and annotations a list; export the project as JSON")
        return
    judged, others = False, set[str]()
    for annotation in annotations:
        if not isinstance(annotation, Mapping) or annotation.get("was_cancelled") or annotation.get("skipped"):
            continue
        for result in _results(annotation):
            if str(result.get("type")).casefold() != "pairwise":
                others.add(str(result.get("type")))
                continue
            judged = True
            selected = result.get("value")
            selected = selected.get("selected") if isinstance(selected, Mapping) else None
            tag = str(result.get("from_name"))
            listed = _names(result.get("to_name"))
            by = _annotator(annotation.get("completed_by"))
            yield _judgement(number, data, file, labelling, tag, listed, selected, by)
    if not judged:
        yield _not_compared(file, number, others)


def _translate_short(
    labelling: Labelling, number: int, fields: Fields, file: str, _names_of: Names
) -> Iterator[Judgement | Finding]:
    found = {name: selected for name in fields if (selected := _selected(fields[name])) is not None}
    configured = {name: found[name] for name in found if name in labelling.sides}
    objects = {name: found[name] for name in found if fields[name] not in SELECTED}
    found = configured or objects or found
    if len(found) > 1 and not configured and not objects:
        shown = printable(", ".join(found))
        reason = (
            f"several columns say left or right ({shown}); put the project's labelling configuration into the archive "
            "as config.xml, which says which of them compare images"
        )
        yield row_finding(file, number, reason)
        return
    data = {name: value for name, value in fields.items() if name not in (*_OF_ANNOTATION, *found)}
    for tag, selected in found.items():
        yield _judgement(number, data, file, labelling, tag, [], selected, text_of(fields.get("annotator")))
    if not found:
        yield _not_compared(file, number, set())


def _selected(cell: object) -> object:
    """``left`` of ``[{"selected": "left"}]``, as the short exports write it; None of anything else."""
    if isinstance(cell, str) and cell.strip()[:1] in ("[", "{"):
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError):
            return None
    cell = cell[0] if isinstance(cell, list) and len(cell) == 1 else cell
    return cell.get("selected") if isinstance(cell, Mapping) else cell if cell in SELECTED else None


def _results(annotation: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    results = annotation.get("result")
    for result in results if isinstance(results, list) else []:
        if isinstance(result, Mapping):
            yield result


def _not_compared(file: str, number: int, others: Collection[str]) -> Finding:
    """A task that nobody compared: it was skipped or is predicted, or its annotations are of another kind."""
    if "ranker" in others:
        reason = "it ranks a list (Ranker), which may be more than two images; compare two with a Pairwise tag"
    elif others:
        kinds = printable(", ".join(sorted(others)))
        reason = f"its annotations are {kinds}, and none is of a Pairwise tag, which compares two images"
    else:
        reason = "nobody said which image is preferred"
    text = f"{file} row {number}: {reason}; the row is left out."
    return Finding("label_missing", "warning", text, file, number)


def _judgement(
    number: int,
    data: Mapping[str, Any],
    file: str,
    labelling: Labelling,
    tag: str,
    listed: list[str],
    selected: object,
    annotator: str | None,
) -> Judgement | Finding:
    if selected not in SELECTED:
        reason = f"selected is {printable(repr(selected))}, not left or right; annotate it again"
        return row_finding(file, number, reason)
    sides = _sides(data, labelling, tag, listed)
    images = [data.get(name) for name in sides or ()]
    if sides is None or not all(isinstance(image, str) for image in images):
        there = printable(", ".join(map(str, data))) or "none"
        reason = (
            f"no field says which image is left and which right (fields: {there}); put the project's labelling "
            "configuration into the archive as config.xml, or call the fields image1 and image2"
        )
        return row_finding(file, number, reason)
    own = by_plain(data)
    text = next((name for name in labelling.texts if data.get(name)), None)
    prompt = (
        next((own[name] for name in PROMPTS if name in own and data[own[name]]), None) or text or named(own, PROMPTS)
    )
    known = {"prompt": data.get(prompt) if prompt is not None else None, "annotator": annotator}
    left, right = (path_of(str(image)) for image in images)
    columns = {"prompt": prompt} if prompt is not None else {}
    return compared(file, number, selected == "left", (left, right), known, columns, sides, search="stored name")


def _sides(data: Mapping[str, Any], labelling: Labelling, tag: str, listed: list[str]) -> Sides | None:
    """The fields of the left and of the right image, from the source that is surest."""
    configured = labelling.sides.get(tag)
    if configured is not None and all(name in data for name in configured):
        return configured
    if tag in labelling.sides and configured is None:
        return None
    if len(listed) == 2:
        return (listed[0], listed[1]) if all(name in data for name in listed) else None
    images = [str(name) for name, value in data.items() if isinstance(value, str) and _SHOWN.search(value)]
    if more_than_two(images):
        return None
    pairs = [pair for _, pair in paired(images, SIDES)]
    found = pairs[0] if len(pairs) == 1 else image_pair(images, SIDES)
    return None if found is not None and found[::-1] in labelling.sides.values() else found  # another tag's, perhaps


def _names(to_name: object) -> list[str]:
    texts = to_name if isinstance(to_name, list) else str(to_name or "").split(",")
    return [str(text).strip() for text in texts if str(text).strip()]


def _annotator(completed_by: object) -> str | None:
    if isinstance(completed_by, Mapping):
        completed_by = completed_by.get("email") or completed_by.get("id")
    return str(completed_by) if completed_by else None


def path_of(image: str) -> str:
    """The path behind ``/data/upload/3/1a2b3c4d-fox.png``, ``/data/local-files/?d=a/fox.png``, ``s3://b/a/fox.png``."""
    if image.startswith("/data/upload/"):
        return unquote(image.lstrip("/"))
    try:
        parts = urlsplit(image)
    except ValueError:  # as of "http://[": the lookup will say that there is no such file
        return image
    local = parse_qs(parts.query).get("d")
    if parts.path.endswith("/local-files/") and local:
        return local[0].lstrip("/")
    return unquote(parts.path).lstrip("/") if parts.scheme or image.startswith("/") else image


def _find_export(columns: Collection[str]) -> Names | None:
    """``completions`` is what annotations were called before version 1.0."""
    for called in ("annotations", "completions"):
        found = exact(columns, ("data", called), ())
        if found is not None:
            return found
    return None


def _find_short(columns: Collection[str]) -> Names | None:
    required = SHORT_LABEL_STUDIO.columns
    return {name: name for name in columns} if required <= set(columns) else None


LABEL_STUDIO = Layout(
    "label-studio",
    frozenset({"data", "annotations"}),
    functools.partial(_translate, Labelling()),
    one_a_row=False,
    finder=_find_export,
)
SHORT_LABEL_STUDIO = Layout(
    "label-studio-short",
    frozenset({"annotation_id", "annotator", "lead_time"}),
    functools.partial(_translate_short, Labelling()),
    one_a_row=False,
    finder=_find_short,
)
