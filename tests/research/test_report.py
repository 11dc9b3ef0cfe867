from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from demo.emoji.domains import NAMES
from research.editions import STORED, edition
from research.page import report, tables
from research.page.findings import findings
from research.plan import WHOLE
from research.statistics.claims import claims
from research.statistics.comparison import LEARNT, Comparison, compare
from research.statistics.growth import growth
from research.statistics.intervals import Interval, interval, success, wilson
from research.trial import MethodName, Trial
from research.trials import mismatch
from research.trials.cost import Cost
from tests.research.test_plan import result

pytestmark = pytest.mark.unit


def compared(similarity: float, advantage: float, width: float = 0.05) -> Comparison:
    over = Interval(advantage, advantage - width, advantage + width)
    methods: tuple[MethodName, ...] = ("mapo", "mapo-code", "sft")
    return Comparison(
        similarity=similarity,
        means={"dpo": 0.5, **dict.fromkeys(methods, 0.5 + advantage)},
        over_dpo=over,
        over_sft=Interval(0, -width, width),
        code_over_dpo=over,
        sft_over_dpo=over,
        subject={},
        over_base={"dpo": over, "mapo": over},
        live={"dpo": 1, "mapo": 1, "mapo-code": 1, "sft": 1, "dreambooth": 1, "dco": 0},
        resampled_over_dpo={method: np.random.default_rng(0).normal(advantage, width, 200) for method in methods},
    )


def test_an_interval_takes_both_seeds_and_prompts_into_account() -> None:
    by_seed = np.repeat([[0.0], [0.5], [1.0]], 20, axis=1)
    by_prompt = np.repeat([np.linspace(0, 1, 20)], 3, axis=0)
    for values in (by_seed, by_prompt):
        found = interval(values)
        assert found.mean == pytest.approx(0.5)
        assert found.high - found.low > 0.2
    same = interval(np.full((3, 20), 0.5))
    assert (same.low, same.high) == (0.5, 0.5)


def test_more_images_of_the_same_prompts_do_not_narrow_an_interval() -> None:
    """Two prompts, one always right and one never: a hundred images of each tell no more about a third prompt."""
    trial = Trial("style", "mapo", 1e-3, 64.0, 1, "test")
    few, many = (replace(result(trial, 0.5), success=[[1.0, 0.0]] * images) for images in (1, 100))
    assert interval(success([few])) == interval(success([many]))


def test_an_interval_narrows_with_prompts() -> None:
    chance = np.random.default_rng(0)
    few, many = (interval(chance.random((3, count))) for count in (5, 500))
    assert many.high - many.low < few.high - few.low


def test_a_difference_is_claimed_only_where_its_interval_leaves_zero_out() -> None:
    text = "\n".join(findings({"style": compared(0.5, 0.3), "general": compared(0.9, 0.02)}, {}))
    assert "ahead in style (+0.30); not told apart in general (+0.02)" in text
    assert "behind" not in text
    assert "behind in style (-0.30)" in "\n".join(findings({"style": compared(0.5, -0.3)}, {}))


def test_growth_with_mismatch_is_supported_only_by_an_order_and_a_gap() -> None:
    rising = {name: compared(0.9 - 0.2 * step, 0.2 * step) for step, name in enumerate(("general", "style", "culture"))}
    assert "This supports the claim" in "\n".join(findings(rising, {}))  # type: ignore[arg-type]
    flat = {
        name: compared(0.9 - 0.2 * step, 0.2 - 0.1 * step) for step, name in enumerate(("general", "style", "culture"))
    }
    assert "This contradicts the claim" in "\n".join(findings(flat, {}))  # type: ignore[arg-type]


def test_a_domain_that_nobody_has_learnt_is_called_so() -> None:
    text = "\n".join(findings({"culture": compared(0.5, -0.4), "style": compared(0.5, 0.3)}, {}))
    assert "No method has learnt culture" not in text  # DPO's 0.5 is above the floor
    low = replace(compared(0.5, 0.1), means={"mapo": 0.1, "dpo": 0.0})
    assert "No method has learnt culture" in "\n".join(findings({"culture": low}, {}))


def test_domains_that_are_not_finished_are_named() -> None:
    text = "\n".join(findings({"style": compared(0.5, 0.3)}, {}, ["culture", "general"]))
    assert "**Not finished yet**: culture, general." in text
    assert "Not finished" not in "\n".join(findings({"style": compared(0.5, 0.3)}, {}))


def test_cost_is_reported_as_it_was_measured() -> None:
    costs = {"mapo": Cost(0.1, 0.9, 0.88, 0.92, 10**9, 1.0)}
    text = "\n".join(findings({"style": compared(0.5, 0.1)}, costs))  # type: ignore[arg-type]
    assert "0.90 of Diffusion-DPO's time, a smaller saving than the paper's 0.855" in text


def test_the_published_page_holds_what_the_committed_results_say() -> None:
    page = Path("docs/benchmark.md").read_text(encoding="utf-8")
    for line in tables.tables(WHOLE, STORED):
        assert line in page


def test_what_the_page_of_methods_says_of_the_bench_is_so() -> None:
    """docs/concepts/methods.md sums up in words: mapo against sft, dreambooth and dpo, and dco."""
    measured = mismatch.read(STORED.folder)
    found = {name: compare(name, measured[name].similarity, WHOLE, STORED) for name in NAMES}
    subject = found.pop("personalization")
    assert all(abs(one.over_sft.mean) < LEARNT for one in found.values())
    assert f"gained in style is {found['style'].over_sft.mean:.2f}" in Path("docs/concepts/methods.md").read_text(
        "utf-8"
    )
    assert subject.over_sft.high < 0
    assert subject.subject["dreambooth"].high < 0
    del found["general"]  # where the base is near
    assert all(one.over_dpo.low > 0 and one.sft_over_dpo.low > 0 for one in [*found.values(), subject])
    assert subject.live["dco"] == 0


def test_every_image_of_the_page_is_there() -> None:
    page = Path("docs/benchmark.md").read_text(encoding="utf-8")
    pictures = [part.split(")")[0] for part in page.split("](")[1:] if part.startswith("images/")]
    assert pictures
    assert all((Path("docs") / image).is_file() for image in pictures)


@pytest.mark.slow
def test_the_whole_page_and_its_plots_are_made_again_to_the_committed_bytes(tmp_path: Path) -> None:
    stored = edition("kept")
    for grid in stored.pictures.glob("*.webp"):  # of samples, which are not kept
        shutil.copyfile(grid, tmp_path / grid.name)
    assert "\n".join(report.page(STORED, tmp_path)) == stored.page.read_text(encoding="utf-8")
    for plot in stored.pictures.glob("*.svg"):
        assert (tmp_path / plot.name).read_bytes() == plot.read_bytes()


def test_the_prompt_that_the_subject_was_learnt_with_is_in_no_published_figure() -> None:
    trial = Trial("personalization", "mapo", 1e-3, 64.0, 1, "test")
    done = replace(result(trial, 0.0), success=[[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    assert success([done]).tolist() == [[0.0] * 5]
    assert success([done], learnt_too=True).tolist() == [[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]]


def test_growth_that_one_domain_makes_is_not_called_so() -> None:
    """One domain without any advantage, four others that do not rise: the whole rises, without it nothing does."""
    advantages = {"general": 0.0, "safety": 0.40, "culture": 0.36, "style": 0.44, "personalization": 0.38}
    few = {name: compared(0.9 - 0.1 * step, value, 0.001) for step, (name, value) in enumerate(advantages.items())}
    found = growth(few, "mapo")  # type: ignore[arg-type]
    assert found.over_all.low > 0
    assert found.weakest == "general"
    assert found.without["general"] <= 0
    assert not found.holds


def verdicts(**changed: Comparison) -> dict[str, str]:
    names = ("general", "safety", "culture", "style", "personalization")
    domains = {name: compared(0.9 - 0.1 * step, 0.1 + 0.1 * step) for step, name in enumerate(names)} | changed
    return {claim.says: claim.verdict for claim in claims(domains, {})}  # type: ignore[arg-type]


def test_a_claim_is_reproduced_only_where_every_domain_of_it_shows_it() -> None:
    says = "MaPO is ahead of Diffusion-DPO in culture, safety and style"
    assert verdicts()[says] == "reproduced"
    assert verdicts(style=compared(0.6, 0.02))[says] == "not reproduced"


def test_being_ahead_of_a_method_that_never_learnt_is_no_test() -> None:
    behind, ahead = Interval(-0.1, -0.2, -0.05), Interval(0.4, 0.3, 0.5)
    found = verdicts(personalization=replace(compared(0.5, 0.5), subject={"dreambooth": behind, "dco": ahead}))
    assert found["MaPO is ahead of DreamBooth for a new subject"] == "not reproduced: the opposite"
    assert found["MaPO is ahead of DCO for a new subject"] == "not testable here"


def test_culture_is_no_test_of_diffusion_dpo_where_no_setting_of_it_learnt_anything() -> None:
    says = "In culture Diffusion-DPO is ahead of SFT"
    lost = replace(compared(0.7, 0.3), sft_over_dpo=Interval(0.3, 0.2, 0.4))
    assert verdicts(culture=lost)[says] == "not reproduced: the opposite"
    dead = replace(lost, live=lost.live | {"dpo": 0}, over_dpo=Interval(0.0, -0.1, 0.1))
    found = verdicts(culture=dead)
    assert found[says] == "not testable here"
    assert found["MaPO is ahead of Diffusion-DPO in culture, safety and style"] == "reproduced"


def test_sft_is_said_to_explain_the_advantage_only_where_mapo_is_not_ahead_of_it() -> None:
    assert "**SFT has the same advantage.**" in "\n".join(findings({"style": compared(0.5, 0.3)}, {}))
    ahead = replace(compared(0.5, 0.3), over_sft=Interval(0.2, 0.1, 0.3))
    assert "**Is it the margin?**" in "\n".join(findings({"style": ahead}, {}))


def test_an_interval_of_a_share_is_wilsons() -> None:
    found = wilson(160, 162)
    assert (found.mean, found.low) == pytest.approx((0.9877, 0.9561), abs=1e-4)
    assert wilson(5, 5).low < 0.6
