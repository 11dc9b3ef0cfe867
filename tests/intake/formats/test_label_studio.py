"""Label Studio's exports as its own package writes them (``tests/intake/label_studio_exports``): a.png is left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from intake import PreparedUpload
from intake.formats.label_studio import configuration
from tests.intake.build import codes, only, prepare, zip_of
from tests.intake.colours import numbered, pairs

pytestmark = pytest.mark.unit
EXPORTS = Path(__file__).parents[1] / "label_studio_exports"
A, B = 0, 1


def export(*names: str, tmp_path: Path, **more: bytes) -> PreparedUpload:
    files = {name: (EXPORTS / name).read_bytes() for name in names}
    images = {"images/a.png": numbered(A), "images/b.png": numbered(B)}
    return prepare(zip_of((files | images | more).items()), tmp_path)


@pytest.mark.parametrize("name", ["template.json", "template-min.json", "template.csv"])
def test_every_export_of_a_project_gives_the_same_pairs(name: str, tmp_path: Path) -> None:
    """Neither the cancelled annotation nor the prediction is a judgement."""
    prepared = export(name, tmp_path=tmp_path)
    assert prepared.format == "archive/label-studio"
    assert pairs(prepared) == [("a fox", A, B), ("a hen", B, A), ("a hen", A, B)]
    assert [pair.annotator for pair in prepared.pairs] == ["1", "1", "kim@example.org"]
    assert set(codes(prepared)) == {"label_missing"}
    assert prepared.usable


@pytest.mark.parametrize(
    "fields",
    ["image_a-image_b", "left-right", "left_url-right_url", "image0-image1", "candidate_a-candidate_b", "gen1-gen2"],
)
def test_fields_that_are_named_for_their_sides_tell_them(fields: str, tmp_path: Path) -> None:
    prepared = export(f"fields-{fields}.json", tmp_path=tmp_path)
    assert pairs(prepared) == [("a fox", A, B), ("a hen", B, A)]


@pytest.mark.parametrize("name", ["renamed.json", "renamed-min.json", "renamed.csv"])
@pytest.mark.parametrize("called", ["config.xml", "labeling_config.xml", "label_config.txt", "deep/er/x.xml"])
def test_the_labelling_configuration_in_the_archive_tells_the_sides(name: str, called: str, tmp_path: Path) -> None:
    prepared = export(name, tmp_path=tmp_path, **{called: (EXPORTS / "renamed.xml").read_bytes()})
    assert pairs(prepared) == [("a fox", A, B), ("a hen", B, A)]
    assert prepared.findings == ()


def test_the_configuration_wins_over_the_names_of_the_fields(tmp_path: Path) -> None:
    swapped = (EXPORTS / "template.xml").read_text(encoding="utf-8").replace("image1,image2", "image2,image1")
    prepared = export("template.json", tmp_path=tmp_path, **{"config.xml": swapped.encode()})
    assert pairs(prepared) == [("a fox", B, A), ("a hen", A, B), ("a hen", B, A)]


@pytest.mark.parametrize(("first", "second"), [("pw", "pw"), ("other", "another")])
def test_configurations_that_say_another_thing_of_the_sides_refuse_the_rows(
    first: str, second: str, tmp_path: Path
) -> None:
    template = (EXPORTS / "template.xml").read_text(encoding="utf-8")
    assert 'name="pw"' in template
    one = template.replace('name="pw"', f'name="{first}"')
    other = template.replace('name="pw"', f'name="{second}"').replace("image1,image2", "image2,image1")
    prepared = export("template.json", tmp_path=tmp_path, **{"a.xml": one.encode(), "b.xml": other.encode()})
    assert (prepared.count, prepared.usable) == (0, False)


def test_two_of_three_images_are_not_guessed(tmp_path: Path) -> None:
    tasks = json.loads((EXPORTS / "template.json").read_text(encoding="utf-8"))
    for task in tasks:
        task["data"]["image3"] = task["data"]["image1"]
    prepared = export(tmp_path=tmp_path, **{"export.json": json.dumps(tasks).encode()})
    assert (prepared.count, prepared.usable) == (0, False)


@pytest.mark.parametrize("name", ["template-min.json", "renamed-min.json"])
def test_a_field_that_says_left_is_no_judgement(name: str, tmp_path: Path) -> None:
    rows = json.loads((EXPORTS / name).read_text(encoding="utf-8"))
    changed = json.dumps([row | {"pose": "left"} for row in rows]).encode()
    configuration = (EXPORTS / f"{name.removesuffix('-min.json')}.xml").read_bytes()
    prepared = export(tmp_path=tmp_path, **{"export.json": changed, "config.xml": configuration})
    assert pairs(prepared)[:2] == [("a fox", A, B), ("a hen", B, A)]


def test_two_columns_that_say_left_or_right_need_the_configuration(tmp_path: Path) -> None:
    row = {"prompt": "p", "pose": "left", "image1": "a.png", "image2": "b.png", "pw": "right", "annotator": 1}
    rows = json.dumps([row | {"annotation_id": 1, "lead_time": 1}]).encode()
    prepared = export(tmp_path=tmp_path, **{"export.json": rows})
    assert "several columns say left or right (pose, pw)" in only(prepared.findings).message


def test_a_projects_own_json_holds_the_configuration(tmp_path: Path) -> None:
    project = {"id": 3, "title": "x", "label_config": (EXPORTS / "renamed.xml").read_text(encoding="utf-8")}
    prepared = export("renamed.json", tmp_path=tmp_path, **{"a/b/project.json": json.dumps(project).encode()})
    assert pairs(prepared) == [("a fox", A, B), ("a hen", B, A)]


@pytest.mark.parametrize("name", ["renamed.json", "renamed-min.json", "renamed.csv"])
def test_without_anything_that_tells_the_sides_nothing_is_guessed(name: str, tmp_path: Path) -> None:
    prepared = export(name, tmp_path=tmp_path)
    finding = only(prepared.findings)
    assert (finding.code, prepared.count) == ("row_invalid", 0)
    assert "put the project's labelling configuration into the archive as config.xml" in finding.message
    assert "The same in 1 more row (2)" in finding.message


def test_a_ranking_of_more_than_two_is_named_once(tmp_path: Path) -> None:
    prepared = export("ranker.json", "ranker.xml", tmp_path=tmp_path)
    assert (codes(prepared), prepared.count, prepared.usable) == (["label_missing", "pairs_none"], 0, False)
    assert "ranks a list (Ranker)" in prepared.findings[0].message


def test_annotations_of_before_version_1(tmp_path: Path) -> None:
    assert pairs(export("old.json", tmp_path=tmp_path)) == [("a fox", A, B)]


def test_an_annotation_of_another_kind_says_so(tmp_path: Path) -> None:
    task = json.loads((EXPORTS / "template.json").read_text(encoding="utf-8"))[0]
    task["annotations"][0]["result"] = [{"type": "choices", "from_name": "c", "value": {"choices": ["left"]}}]
    files = [("export.json", json.dumps([task]).encode()), ("a.png", numbered(A)), ("b.png", numbered(B))]
    prepared = prepare(zip_of(files), tmp_path)
    assert "its annotations are choices, and none is of a Pairwise tag" in prepared.findings[0].message


@pytest.mark.parametrize(
    "text",
    [
        "", "<View/>", "<View><Pairwise name='pw' toName='a,b'/></View>", "<Pairwise", "text Pairwise",
        '<!DOCTYPE x [<!ENTITY a "a">]><View><Pairwise name="pw" toName="a,b"/></View>',
    ],
)  # fmt: skip
def test_what_is_no_labelling_configuration_says_nothing(text: str) -> None:
    assert configuration(text).sides == {}
