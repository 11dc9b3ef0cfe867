"""Label Studio's JSON export of tasks that were compared with its Pairwise tag.

Each annotation becomes one judgement, by its annotator. ``selected`` is "left" or "right" in the order of the tag's
``toName``; the export has those names, but not which field of the task each shows. So the names of the image tags have
to be those of the fields, as in Label Studio's own template: guessing could swap every preference. There is no tie.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from intake.errors import MetadataError
from intake.findings import Finding, printable
from intake.formats.judgement import Fields, Judgement, Layout, compared, row_finding, unlabelled

PROMPTS = ("prompt", "caption", "text")
SIDES = ("left", "right")


def translate(number: int, fields: Fields, file: str) -> Iterator[Judgement | Finding]:
    data, annotations = fields.get("data"), fields.get("annotations")
    if not isinstance(data, Mapping) or not isinstance(annotations, list):
        yield row_finding(file, number, "data has to be an object and annotations a list; export the project as JSON")
        return
    judged = [
        (annotation, result)
        for annotation in annotations
        if isinstance(annotation, Mapping) and not annotation.get("was_cancelled")
        for result in _pairwise(annotation)
    ]
    if not judged:
        yield unlabelled(file, number)
    for annotation, result in judged:
        yield _judgement(number, data, annotation, result, file)


def _pairwise(annotation: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    results = annotation.get("result")
    for result in results if isinstance(results, list) else []:
        if isinstance(result, Mapping) and result.get("type") == "pairwise":
            yield result


def _judgement(
    number: int, data: Mapping[str, Any], annotation: Mapping[str, Any], result: Mapping[str, Any], file: str
) -> Judgement | Finding:
    value = result.get("value")
    selected = value.get("selected") if isinstance(value, Mapping) else None
    if selected not in SIDES:
        return row_finding(
            file, number, f"selected is {printable(repr(selected))}, not left or right; annotate it again"
        )
    names = _names(result.get("to_name"))
    images = [data.get(name) for name in names]
    if len(images) != 2 or not all(isinstance(image, str) for image in images):
        shown = printable(", ".join(names)) or "none"
        reason = f"the task has no fields named like the compared tags ({shown}); name each image tag as its field"
        return row_finding(file, number, reason)
    prompt = next((data[name] for name in PROMPTS if data.get(name)), None)
    known = {"prompt": prompt, "annotator": _annotator(annotation.get("completed_by"))}
    left, right = (path_of(str(image)) for image in images)
    return compared(file, number, selected == "left", (left, right), known, search="stored name")


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


LABEL_STUDIO = Layout("label-studio", frozenset({"data", "annotations"}), translate, one_a_row=False)


def refuse(_number: int, _fields: Fields, _file: str) -> Iterator[Judgement | Finding]:
    """Of the short exports (JSON-MIN, CSV): they have what was selected, but not in which order it was shown."""
    raise MetadataError(
        "metadata_columns",
        "is a short export of Label Studio (JSON-MIN or CSV), which does not say which image was left and which right; "
        "export the project as JSON",
    )


SHORT_LABEL_STUDIO = Layout("label-studio-short", frozenset({"annotation_id", "annotator", "lead_time"}), refuse)
