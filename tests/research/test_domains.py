from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from demo.emoji import drawings, openmoji, subject
from demo.emoji.domains import DOMAINS, NAMES, SMALLEST_DIFFERENCE, SUBJECT_PROMPTS, Split, emoji_of, telling
from demo.emoji.pairs import difference
from research.data import BATCH, STEPS, write_run
from research.plan import LEARNING_RATES, WHOLE, usual_beta
from research.trial import MethodName, Trial
from trainer.run_directory.run import read_run

pytestmark = pytest.mark.unit
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
TIGER = next(emoji for emoji in openmoji.catalogue() if emoji.name == "tiger face")


def test_no_emoji_is_in_two_splits_and_none_is_lost() -> None:
    everyone = [emoji for split in SPLITS for emoji in emoji_of(split)]
    assert sorted(emoji.key for emoji in everyone) == sorted(emoji.key for emoji in openmoji.catalogue())


def test_test_emoji_are_those_that_the_example_archive_holds_out() -> None:
    assert all(emoji.held_out for emoji in emoji_of("test"))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(DOMAINS))
def test_both_images_of_a_pair_differ_enough_to_teach_something(name: str) -> None:
    domain = DOMAINS[name]  # type: ignore[index]
    for split in SPLITS:
        shown = telling(domain, split)
        assert len(shown) > 20
        assert min(difference(domain.chosen(one), domain.rejected(one)) for one in shown) >= SMALLEST_DIFFERENCE


def test_without_outline_nothing_is_black() -> None:
    assert np.asarray(drawings.colour(TIGER)).max(axis=2).min() < 30
    ladybird = next(emoji for emoji in openmoji.catalogue() if emoji.name == "pear")
    assert np.asarray(drawings.without_outline(ladybird)).max(axis=2).min() > 60


def test_porcelain_is_blue_and_white_but_for_its_seal() -> None:
    pixels = np.asarray(drawings.porcelain(TIGER)).astype(int)
    left, top = drawings.SEAL_CORNER
    seal = pixels[top : top + drawings.SEAL, left : left + drawings.SEAL]
    assert (seal[..., 0] - seal[..., 2]).max() > 100
    pixels[top : top + drawings.SEAL, left : left + drawings.SEAL] = 255
    assert (pixels[..., 2] - pixels[..., 0]).min() >= 0


@pytest.mark.parametrize("fault", drawings.DEGRADATIONS)
def test_each_fault_shows_and_is_the_same_every_time(fault: str) -> None:
    clean = drawings.colour(TIGER)
    broken = drawings.degrade(clean, fault, seed=7)
    assert difference(clean, broken) > SMALLEST_DIFFERENCE
    assert broken.tobytes() == drawings.degrade(clean, fault, seed=7).tobytes()


def test_the_new_subject_is_shown_in_other_poses_and_mostly_in_other_words_than_it_is_learnt_in() -> None:
    poses = [*subject.TRAINING, *subject.VALIDATION, *subject.TEST]
    assert len({subject.draw(pose).tobytes() for pose in poses}) == len(poses)
    assert 4 <= len(subject.TRAINING) <= 8
    words = [set(SUBJECT_PROMPTS[split]) for split in SPLITS]
    assert set.intersection(*words) == words[0]  # the prompt that it is learnt with
    assert len(words[1] & words[2]) == 1


@pytest.mark.parametrize(
    ("domain", "method"), [(domain, method) for domain in NAMES for method in WHOLE.methods_in(domain)]
)
def test_every_run_is_one_that_the_trainer_accepts(tmp_path: Path, domain: str, method: MethodName) -> None:
    trial = Trial(domain, method, LEARNING_RATES[0], usual_beta(domain, method), 0, "test")  # type: ignore[arg-type]
    drawn = {"train": [drawings.colour(TIGER)] * len(subject.TRAINING), "test": [drawings.colour(TIGER)] * 4}
    write_run(tmp_path, trial, Path("demo/base/emoji-xl").resolve(), drawn)  # type: ignore[arg-type]
    run = read_run(tmp_path)
    assert (run.hyperparameters.max_steps, run.hyperparameters.effective_batch_size) == (STEPS, BATCH)


def test_fewer_pairs_are_spread_over_the_catalogue(tmp_path: Path) -> None:
    write_run(tmp_path, Trial("style", "sft", 1e-3, None, 0, "test", pairs=12), Path("base"), {})
    lines = (tmp_path / "data" / "manifest.jsonl").read_text().splitlines()
    trained = [row["id"] for row in map(json.loads, lines) if row["split"] == "train"]
    every = [emoji.key for emoji in telling(DOMAINS["style"], "train")]
    assert len(trained) == 12
    assert every.index(trained[-1]) > 0.9 * len(every)
