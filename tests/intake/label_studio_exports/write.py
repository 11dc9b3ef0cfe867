"""Writes the exports in this folder with Label Studio's own code: ``python write.py`` with label-studio-sdk 2.1.2.

The package is no dependency of ours (docs/decisions/0005-dependencies.md), so the files that it wrote are committed.
Regions come from the SDK's tags, and the short exports from its converter. Images are called a.png and b.png: a.png is
on the left.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from label_studio_sdk.converter import Converter
from label_studio_sdk.label_interface import LabelInterface

HERE = Path(__file__).parent
A, B = "/data/upload/3/1a2b3c4d-a.png", "/data/upload/3/5e6f7a8b-b.png"
CONFIGS = {
    "template": """<View>
  <Text name="prompt" value="$prompt"/>
  <Pairwise name="pw" toName="image1,image2"/>
  <Image name="image1" value="$image1"/>
  <Image name="image2" value="$image2"/>
</View>
""",
    # No name here says which side it is, and the fields stand in the other order in a task.
    "renamed": """<View>
  <Header value="Which one is better?"/>
  <Text name="words" value="$wish"/>
  <Pairwise name="better" toName="one,other"/>
  <Image name="one" value="$sdxl"/>
  <Image name="other" value="$flux"/>
</View>
""",
    "ranker": """<View>
  <Text name="prompt" value="$prompt"/>
  <List name="results" value="$items"/>
  <Ranker name="rank" toName="results"/>
</View>
""",
}
WHEN = {"created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z", "lead_time": 2.5}


def region(config: str, value: Any) -> dict[str, Any]:
    [tag] = [tag for tag in LabelInterface(CONFIGS[config]).controls if tag.tag in ("Pairwise", "Ranker")]
    made = tag.label(ranker=value) if tag.tag == "Ranker" else tag.label(value)
    return {**made._dict(), "origin": "manual"}


def annotation(number: int, by: object, *results: dict[str, Any], cancelled: bool = False) -> dict[str, Any]:
    return {
        "id": number, "completed_by": by, "result": list(results), "was_cancelled": cancelled, "ground_truth": False,
        **WHEN, "draft_created_at": None, "prediction": {}, "result_count": len(results), "parent_prediction": None,
    }  # fmt: skip


def task(number: int, data: dict[str, Any], *annotations: dict[str, Any], **more: object) -> dict[str, Any]:
    return {
        "id": number, "annotations": list(annotations), "file_upload": None, "drafts": [], "predictions": [],
        "data": data, "meta": {}, "inner_id": number, "total_annotations": len(annotations), "project": 3, **more,
    }  # fmt: skip


def template() -> list[dict[str, Any]]:
    left, right = region("template", "left"), region("template", "right")
    predicted = {"id": 5, "model_version": "m", "score": 0.9, "result": [left]}
    shown, kim = {"image1": A, "image2": B}, {"id": 2, "email": "kim@example.org"}
    return [
        task(1, {"prompt": "a fox", **shown}, annotation(11, 1, left)),
        task(2, {"prompt": "a hen", **shown}, annotation(12, 1, right), annotation(13, kim, left)),
        task(3, {"prompt": "skipped", **shown}, annotation(14, 1, left, cancelled=True)),
        task(4, {"prompt": "predicted", **shown}, predictions=[predicted]),
    ]  # fmt: skip


def both(config: str, data: dict[str, Any], prompt: str) -> list[dict[str, Any]]:
    left, right = (annotation(10, 1, region(config, side)) for side in ("left", "right"))
    return [task(1, data, left), task(2, data | {prompt: "a hen"}, right)]


def convention(first: str, second: str) -> list[dict[str, Any]]:
    # The second side stands first in the task, as no order of keys says anything.
    data = {second: "b.png", first: "a.png", "caption": "a fox"}
    return both("template", data, "caption")


def renamed() -> list[dict[str, Any]]:
    data = {"flux": "b.png", "sdxl": "a.png", "wish": "a fox"}
    return both("renamed", data, "wish")


def ranker() -> list[dict[str, Any]]:
    items = [{"id": name, "html": f"<img src='{name}.png'>"} for name in "abc"]
    ranked = region("ranker", {"rank": ["b", "a", "c"]})
    return [task(number, {"prompt": "a fox", "items": items}, annotation(10 + number, 1, ranked)) for number in (1, 2)]


def old() -> list[dict[str, Any]]:
    """Before version 1.0 annotations were completions."""
    tasks = template()[:1]
    return [{"completions" if name == "annotations" else name: value for name, value in one.items()} for one in tasks]


def save(name: str, content: object) -> None:
    (HERE / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def short_exports(config: str, tasks: list[dict[str, Any]]) -> None:
    """JSON-MIN and CSV, as the export page of a project writes them."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "tasks.json"
        source.write_text(json.dumps(tasks), encoding="utf-8")
        converter = Converter(CONFIGS[config], folder)
        converter.convert_to_json_min(str(source), folder, is_dir=False)
        save(f"{config}-min.json", json.loads((Path(folder) / "result.json").read_text(encoding="utf-8")))
        converter.convert_to_csv(str(source), folder, is_dir=False, sep=",", header=True)
        shutil.copy(Path(folder) / "result.csv", HERE / f"{config}.csv")


def main() -> None:
    for name, config in CONFIGS.items():
        (HERE / f"{name}.xml").write_text(config, encoding="utf-8")
    save("template.json", template())
    short_exports("template", template())
    save("renamed.json", renamed())
    short_exports("renamed", renamed())
    save("ranker.json", ranker())
    save("old.json", old())
    for first, second in (
        ("image_a", "image_b"),
        ("left", "right"),
        ("left_url", "right_url"),
        ("image0", "image1"),
        ("candidate_a", "candidate_b"),
        ("gen1", "gen2"),
    ):
        save(f"fields-{first}-{second}.json", convention(first, second))


if __name__ == "__main__":
    main()
