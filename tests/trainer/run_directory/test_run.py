from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from trainer.run_directory.run import Run, _digest, read_run
from trainer.runtime.errors import BadRun
from trainer.spec.method_facts import METHODS, listed

pytestmark = pytest.mark.unit

SPEC = {"base": {"name": "b", "family": "sdxl", "source": "b"}, "method": {"type": "mapo"}}


def pair(identifier: str, **changes: str) -> dict[str, str]:
    return {"id": identifier, "prompt": "p", "chosen": "a.png", "rejected": "b.png", "split": "train"} | changes


def directory(folder: Path, *lines: object, spec: object = SPEC) -> Path:
    (folder / "data").mkdir(parents=True)
    for name in ("a", "b"):
        Image.new("RGB", (8, 6), (name == "a" and "red") or "blue").save(folder / f"data/{name}.png")
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "data/manifest.jsonl").write_text(text)
    (folder / "spec.json").write_text(json.dumps(spec))
    return folder


def field_errors(folder: Path) -> list[str]:
    with pytest.raises(BadRun) as raised:
        read_run(folder)
    return [str(field_error) for field_error in raised.value.field_errors]


def test_a_sound_directory_is_read(tmp_path: Path) -> None:
    run = read_run(directory(tmp_path, pair("1"), pair("2", split="validation")))
    assert ([one.id for one in run.training], [one.id for one in run.validation]) == (["1"], ["2"])
    assert run.training[0].chosen.size == (8, 6)
    assert run.hyperparameters.effective_batch_size == 1


def test_a_pairs_weight_and_seed_are_read_and_the_weight_changes_the_data(tmp_path: Path) -> None:
    def read(name: str, **fields: object) -> Run:
        return read_run(directory(tmp_path / name, {**pair("1"), **fields}))

    plain, weighted, seeded = read("1"), read("2", weight=2.5), read("3", seed=7)
    assert [(one.training[0].weight, one.training[0].seed) for one in (plain, weighted, seeded)] == [
        (1.0, None),
        (2.5, None),
        (1.0, 7),
    ]
    assert plain.dataset_digest == read("4", weight=1.0).dataset_digest == seeded.dataset_digest
    assert plain.dataset_digest != weighted.dataset_digest
    faults = field_errors(directory(tmp_path / "5", {**pair("1"), "weight": 0, "seed": -1}))
    assert any("weight" in fault for fault in faults)
    assert any("seed" in fault for fault in faults)


def test_each_side_is_the_image_that_the_manifest_names_for_it(tmp_path: Path) -> None:
    run = read_run(directory(tmp_path, pair("1"), pair("2", chosen="b.png", rejected="a.png", split="validation")))
    [training], [held_out] = run.training, run.validation
    assert training.rejected is not None
    for file, colour in ((training.chosen, (255, 0, 0)), (training.rejected, (0, 0, 255))):
        with Image.open(file.path) as image:
            assert image.getpixel((0, 0)) == colour
        assert file.sha256 == hashlib.sha256(file.path.read_bytes()).hexdigest()
    assert (held_out.chosen, held_out.rejected) == (training.rejected, training.chosen)


def test_the_digest_changes_with_the_sides(tmp_path: Path) -> None:
    as_given, swapped = (
        read_run(directory(folder, pair("1", chosen=chosen, rejected=rejected)))
        for folder, chosen, rejected in (
            (tmp_path / "1", "a.png", "b.png"),
            (tmp_path / "2", "b.png", "a.png"),
        )
    )
    assert as_given.dataset_digest != swapped.dataset_digest


def test_the_digest_changes_with_spec_and_with_data(tmp_path: Path) -> None:
    run = read_run(directory(tmp_path, pair("1")))
    (tmp_path / "spec.json").write_text(json.dumps({**SPEC, "seed": 1}))
    other_seed = read_run(tmp_path)
    Image.new("RGB", (8, 6), "green").save(tmp_path / "data/b.png")
    other_image = read_run(tmp_path)
    assert len({run.digest, other_seed.digest, other_image.digest}) == 3
    assert run.dataset_digest == other_seed.dataset_digest != other_image.dataset_digest


@pytest.mark.parametrize(
    "change",
    [{"prompt": "q"}, {"id": "2"}, {"chosen": "b.png"}, {"rejected": "a.png"}, {"split": "validation"}],
)
def test_the_datasets_digest_changes_with_anything_of_a_pair(tmp_path: Path, change: dict[str, str]) -> None:
    run = read_run(directory(tmp_path, pair("0"), pair("1")))
    (tmp_path / "data/manifest.jsonl").write_text("\n".join(map(json.dumps, (pair("0"), pair("1") | change))))
    other = read_run(tmp_path)
    assert other.dataset_digest != run.dataset_digest
    assert other.digest != run.digest


def test_the_datasets_digest_does_not_change_with_the_names_of_files(tmp_path: Path) -> None:
    run = read_run(directory(tmp_path, pair("1")))
    (tmp_path / "data/a.png").rename(tmp_path / "data/c.png")
    (tmp_path / "data/manifest.jsonl").write_text(json.dumps(pair("1", chosen="c.png")))
    assert read_run(tmp_path).dataset_digest == run.dataset_digest


def test_the_digest_is_of_what_was_given_so_that_a_later_default_does_not_change_it(tmp_path: Path) -> None:
    given = {"sampling": {"steps": 30}, **SPEC}
    run = read_run(directory(tmp_path, pair("1"), spec=given))
    assert run.digest == _digest([given, run.dataset_digest])


def test_an_empty_directory_names_both_missing_files(tmp_path: Path) -> None:
    assert [field_error.split(":")[0] for field_error in field_errors(tmp_path)] == ["spec.json", "data/manifest.jsonl"]


def test_manifest_faults_name_their_lines_and_come_all_at_once(tmp_path: Path) -> None:
    found = field_errors(
        directory(
            tmp_path,
            pair("1"),
            "{not json",
            pair("2", split="test"),
            pair("1"),
            pair("3", chosen="../spec.json"),
            pair("4", rejected="none.png"),
        )
    )
    assert [field_error.split(";")[0] for field_error in found] == [
        "data/manifest.jsonl:2: given no JSON",
        "data/manifest.jsonl:3 split: given 'test'",
        "data/manifest.jsonl: given id '1' 2 times",
        "pair 3 chosen: given '../spec.json'",
        "pair 4 rejected: given 'none.png'",
    ]


def test_a_missing_field_and_a_rule_across_fields_are_named(tmp_path: Path) -> None:
    spec = {
        "base": {"name": "b", "family": "flux", "path": "b"},
        "method": {"type": "mapo", "mapo": {"hyperparameters": {"max_steps": 1, "n_epochs": 1}}},
    }
    found = field_errors(directory(tmp_path, pair("1"), spec=spec))
    assert len(found) == 4
    assert found[0].startswith("method.mapo.hyperparameters: given {'max_steps': 1, 'n_epochs': 1};")
    assert "not both" in found[0]
    assert found[1] == "base.family: given 'flux'; should be 'sd1', 'sd2', 'sdxl' or 'sd3'"
    assert found[2] == "base.source: given nothing; required"
    assert found[3] == "base.path: given 'b'; unknown field; allowed here: config, family, name, revision, source"


def test_a_fault_within_a_method_is_named_without_the_unions_arm(tmp_path: Path) -> None:
    dpo = {"type": "dpo", "dpo": {"hyperparameters": {"beta": "strong"}}, "mapo": {}}
    found = field_errors(directory(tmp_path, pair("1"), spec={**SPEC, "method": dpo}))
    assert found == [
        "method.dpo.hyperparameters.beta: given 'strong'; should be a valid number or should be 'auto'",
        "method.mapo: given {}; unknown field; allowed here: dpo, type",
    ]


def test_an_unknown_method_is_reported_with_the_existing_ones(tmp_path: Path) -> None:
    found = field_errors(directory(tmp_path, pair("1"), spec={**SPEC, "method": {"type": "ppo"}}))
    assert found == [f"method.type: given 'ppo'; should be {listed(map(repr, METHODS))}"]


def test_every_conflict_of_fields_is_a_fault_of_its_own(tmp_path: Path) -> None:
    spec = {**SPEC, "compute": {"pairs": "streamed"}, "adapter": {"dropout": 0.1}, "sampling": {"every_steps": 5}}
    streamed, sampling = field_errors(directory(tmp_path, pair("1"), spec=spec))
    assert streamed.startswith("compute.pairs: given 'streamed'; ")
    assert "set adapter.dropout to 0" in streamed
    assert sampling == "sampling.every_steps: given 5; nothing is sampled without sampling.prompts"


def test_a_prompt_may_hold_what_some_take_for_line_ends(tmp_path: Path) -> None:
    """U+2028, U+0085 and their like stand unescaped in JSON; only a line feed ends a line of JSONL."""
    prompts = ["a\u2028b", "a\x85b", "a\u2029b"]
    lines = [json.dumps(pair(prompt, prompt=prompt), ensure_ascii=False) for prompt in prompts]
    run = read_run(directory(tmp_path, *lines, ""))
    assert {one.prompt for one in (*run.training, *run.validation)} == set(prompts)


@pytest.mark.parametrize("text", ["[" * 10_000, '{"seed": ' + "9" * 5_000 + "}", '{"seed": "\\ud800"}', "\xff"])
def test_what_is_hardly_json_is_a_fault_of_its_line_and_of_the_spec(tmp_path: Path, text: str) -> None:
    folder = directory(tmp_path, pair("1"))
    (folder / "spec.json").write_bytes(text.encode("latin-1"))
    (folder / "data/manifest.jsonl").write_bytes(text.encode("latin-1"))
    found = field_errors(folder)
    assert [field_error.split(";")[0] for field_error in found[:2]] == [
        "spec.json: given no JSON",
        "data/manifest.jsonl:1: given no JSON",
    ]


def test_a_spec_that_is_a_directory_is_a_fault(tmp_path: Path) -> None:
    folder = directory(tmp_path, pair("1"))
    (folder / "spec.json").unlink()
    (folder / "spec.json").mkdir()
    assert field_errors(folder)[0].startswith("spec.json: given Is a directory;")


def test_an_image_path_that_no_file_can_have_is_a_fault(tmp_path: Path) -> None:
    assert field_errors(directory(tmp_path, pair("1", chosen="a\0b")))[0].startswith(r"pair 1 chosen: given 'a\x00b';")


@pytest.mark.parametrize("seed", [True, "7", 7.0])
def test_a_number_is_written_as_a_number(tmp_path: Path, seed: object) -> None:
    (field_error,) = field_errors(directory(tmp_path, pair("1"), spec={**SPEC, "seed": seed}))
    assert field_error.startswith(f"seed: given {seed!r};")


def test_data_without_training_pairs_is_a_fault(tmp_path: Path) -> None:
    assert "at least one with split 'train'" in field_errors(directory(tmp_path, pair("1", split="validation")))[0]


def outside_by_dots(folder: Path) -> str:
    Image.new("RGB", (8, 6), "green").save(folder / "outside.png")
    return "../outside.png"


def outside_by_dots_within(folder: Path) -> str:
    outside_by_dots(folder)
    return "./a.png/../../outside.png"


def outside_by_its_whole_path(folder: Path) -> str:
    outside_by_dots(folder)
    return str(folder / "outside.png")


def outside_by_a_link(folder: Path) -> str:
    outside_by_dots(folder)
    (folder / "data/link.png").symlink_to(folder / "outside.png")
    return "link.png"


def outside_by_a_linked_folder(folder: Path) -> str:
    (folder / "photos").mkdir()
    Image.new("RGB", (8, 6), "green").save(folder / "photos/x.png")
    (folder / "data/photos").symlink_to(folder / "photos", target_is_directory=True)
    return "photos/x.png"


def outside_in_a_folder_of_nearly_the_same_name(folder: Path) -> str:
    (folder / "data-of-another").mkdir()
    Image.new("RGB", (8, 6), "green").save(folder / "data-of-another/x.png")
    return "../data-of-another/x.png"


@pytest.mark.parametrize("side", ["chosen", "rejected"])
@pytest.mark.parametrize(
    "outside",
    [
        outside_by_dots,
        outside_by_dots_within,
        outside_by_its_whole_path,
        outside_by_a_link,
        outside_by_a_linked_folder,
        outside_in_a_folder_of_nearly_the_same_name,
    ],
)
def test_a_real_image_outside_data_is_refused_by_name(
    tmp_path: Path, outside: Callable[[Path], str], side: str
) -> None:
    folder = directory(tmp_path, pair("1"))
    name = outside(folder)
    (folder / "data/manifest.jsonl").write_text(json.dumps(pair("1", **{side: name})))
    assert field_errors(folder) == [f"pair 1 {side}: given {name!r}; paths lead into data/"]


def test_an_image_within_data_may_be_reached_by_dots_links_and_a_linked_data_folder(tmp_path: Path) -> None:
    folder = directory(tmp_path / "run", pair("1", chosen="deep/../a.png", rejected="link.png"))
    (folder / "data/deep").mkdir()
    (folder / "data/link.png").symlink_to("a.png")
    (folder / "data").rename(tmp_path / "elsewhere")
    (folder / "data").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (read,) = read_run(folder).training
    assert read.rejected is not None
    assert read.chosen.sha256 == read.rejected.sha256


def test_pairs_that_share_an_image_are_held_out_together(tmp_path: Path) -> None:
    """By its bytes, whatever the file is called."""
    folder = directory(tmp_path)
    for number in range(12):
        Image.new("RGB", (8, 6), (number * 9, 7, 7)).save(folder / f"data/{number}.png")
    (folder / "data/copy.png").write_bytes((folder / "data/0.png").read_bytes())
    names = [("0.png", "1.png"), ("2.png", "copy.png"), *((f"{n}.png", f"{n + 1}.png") for n in range(4, 12, 2))]
    lines = [pair(str(at), prompt=f"p{at}", chosen=one, rejected=two) for at, (one, two) in enumerate(names)]
    (folder / "data/manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for share in (0.1, 0.2, 0.3, 0.4, 0.5):
        (folder / "spec.json").write_text(json.dumps({**SPEC, "validation": {"share": share}}))
        run = read_run(folder)
        sides = [{one.id for one in pairs} for pairs in (run.training, run.validation)]
        assert any({"0", "1"} <= side for side in sides)
        assert run.held_out_by == "prompt"
