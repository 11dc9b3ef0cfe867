"""Everything that names methods or families names the same ones, in both directions, and agrees on their facts."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import diffusers
import pytest
import torch
import typer

from api.main import create_app
from api.openapi.document import document
from cli.main import app
from store.settings import REPOSITORY, Settings
from tests.api import test_create_job
from tests.docs import tables
from tests.trainer import test_methods
from tests.trainer.families.bases import SAVE_BASE
from tests.trainer.tiny_sdxl import save_run
from trainer import recipe
from trainer.export.metadata import kohya_header
from trainer.families import open_family
from trainer.objectives.objective import Objective, PairLosses
from trainer.program import train_alone
from trainer.recipe import RECIPES, objective_of
from trainer.runtime.errors import BadRun
from trainer.runtime.signals import StopRequest
from trainer.spec.events import Event, Failed, Phase, parse_event
from trainer.spec.family_facts import FAMILIES, FamilyName
from trainer.spec.method_facts import METHODS, MethodName
from trainer.spec.methods import PRESET_BETAS, Method
from trainer.spec.run import Base, RunSpec, TrainingOptions
from trainer.training.beta import default_beta

pytestmark = pytest.mark.unit
PAIRS = 3
OBJECTIVES = sorted((REPOSITORY / "trainer" / "objectives").glob("[a-z]*.py"))


def page(path: str) -> str:
    return (REPOSITORY / path).read_text(encoding="utf-8")


def option_help(*command: str, option: str) -> str:
    found: Any = typer.main.get_command(app)
    for name in command:
        found = found.commands[name]
    (parameter,) = (one for one in found.params if one.name == option)
    return str(parameter.help)


def method_of(name: str) -> Method:
    """With the hyperparameters that the tests train it with."""
    chosen = {"type": name, name: {"hyperparameters": test_methods.METHODS[name]}}
    return TrainingOptions.model_validate({"method": chosen}).method


def union() -> set[str]:
    arms, _ = get_args(Method)
    return {tag for arm in get_args(arms) for tag in get_args(arm.model_fields["type"].annotation)}


def discriminator() -> set[str]:
    schemas = document(create_app(Settings()))["components"]["schemas"]
    return set(schemas["CreateFineTuningJob"]["properties"]["method"]["discriminator"]["mapping"])


METHOD_PLACES: dict[str, Callable[[], Iterable[str]]] = {
    "the pydantic union Method (trainer/spec/methods.py)": union,
    "the type MethodName (trainer/spec/method_facts.py)": lambda: get_args(MethodName),
    "the table RECIPES (trainer/recipe.py)": lambda: RECIPES,
    "the OpenAPI document": discriminator,
    "the sections of docs/concepts/methods.md": lambda: re.findall(
        r"^## ([a-z][a-z0-9_]*)$", page("docs/concepts/methods.md"), re.M
    ),
    "`pairtune train --help`": lambda: names_in(option_help("train", option="method")),
    "METHODS of tests/trainer/test_methods.py": lambda: test_methods.METHODS,
    "METHODS of tests/api/test_create_job.py": lambda: test_create_job.METHODS,
}
FAMILY_PLACES: dict[str, Callable[[], Iterable[str]]] = {
    "the type FamilyName (trainer/spec/family_facts.py)": lambda: get_args(FamilyName),
    "SAVE_BASE of tests/trainer/families/bases.py": lambda: SAVE_BASE,
    "`pairtune models add --help`": lambda: names_in(option_help("models", "add", option="family")),
    "the comment of bases.toml": lambda: re.findall(r"\bsd[a-z0-9]+\b", page("store/bases.toml").partition("\n\n")[0]),
}


def names_in(text: str) -> list[str]:
    return re.split(r", | or ", text.removesuffix("."))


def require_same(position: str, found: Collection[str], wanted: Collection[str], table: str) -> None:
    lacking, surplus = set(wanted) - set(found), set(found) - set(wanted)
    assert not lacking, f"{position}: lacks {lacking}, which {table} has"
    assert not surplus, f"{position}: has {surplus}, which {table} lacks"


@pytest.mark.parametrize("position", METHOD_PLACES)
def test_a_table_names_every_method_of_the_facts_and_no_other(position: str) -> None:
    require_same(position, set(METHOD_PLACES[position]()), METHODS.keys(), "METHODS of trainer/spec/method_facts.py")


@pytest.mark.parametrize("position", FAMILY_PLACES)
def test_a_table_names_every_family_of_the_facts_and_no_other(position: str) -> None:
    require_same(position, set(FAMILY_PLACES[position]()), FAMILIES.keys(), "FAMILIES of trainer/spec/family_facts.py")


@pytest.mark.parametrize("name", tables.PAGES)
def test_the_tables_of_a_page_are_made_from_the_facts(name: str) -> None:
    text = page(name)
    is_current = tables.filled(text) == text
    assert is_current, f"{name} is out of date: python -m tests.docs.tables"
    assert "<!-- table " in text


def test_every_table_stands_on_a_page() -> None:
    shown = re.findall(r"<!-- table ([a-z-]+) -->", "".join(page(name) for name in tables.PAGES))
    assert sorted(shown) == sorted(tables.TABLES)


def test_the_readme_names_every_family() -> None:
    assert [facts.title for facts in FAMILIES.values() if facts.title not in page("README.md")] == []


def test_the_page_of_methods_has_the_betas_of_the_presets() -> None:
    presets = ", ".join(f"{preset} {beta:g}" for preset, beta in PRESET_BETAS.items())
    assert presets in " ".join(page("docs/concepts/methods.md").split())


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_paper_is_in_what_is_said_of_it(name: MethodName) -> None:
    facts = METHODS[name]
    sections = re.split(r"^## ", page("docs/concepts/methods.md"), flags=re.M)
    own = [text for text in sections if text.startswith(f"{name}\n")]
    assert len(own) == 1, f"docs/concepts/methods.md should have one section ## {name}"
    for text in (facts.summary, facts.description, *own):
        assert set(re.findall(r"\d{4}\.\d{5}", text)) == ({facts.paper} if facts.paper else set())


@pytest.mark.parametrize("name", METHODS)
def test_a_method_with_a_beta_says_what_auto_becomes_and_no_other_does(name: MethodName) -> None:
    own = tables.own_hyperparameters()[name]
    has_rule = METHODS[name].auto_beta is not None or RECIPES[name].beta is not default_beta
    assert has_rule == ("beta" in own)


@pytest.mark.parametrize("name", METHODS)
def test_the_card_states_hyperparameters_that_the_method_has(name: MethodName) -> None:
    own = tables.own_hyperparameters()[name]
    stated = METHODS[name].loss_hyperparameters
    assert [field for field in stated if field not in own] == []
    assert "beta" in stated or "beta" not in own


def losses(objective: Objective, *, with_class_image: bool, without: str | None = None) -> PairLosses:
    """As the training step hands them over: what the objective does not see is not computed."""
    value = torch.full((PAIRS,), 0.1)
    pair = PairLosses(
        chosen=value,
        rejected=2 * value if objective.uses_rejected else None,
        reference_chosen=value if objective.uses_reference else None,
        reference_rejected=value if objective.uses_reference and objective.uses_rejected else None,
        prior=3 * value if with_class_image else None,
    )
    nothing: dict[str, Any] = {without: None} if without else {}
    return replace(pair, **nothing)


@pytest.mark.parametrize("name", METHODS)
def test_a_loss_takes_what_the_facts_say_and_nothing_else(name: MethodName) -> None:
    facts, objective = METHODS[name], objective_of(method_of(name), 8.0, num_train_timesteps=1000)
    given = losses(objective, with_class_image=facts.needs_class_images)
    assert objective.loss(given).shape == (PAIRS,)
    needed = ["rejected"] * facts.needs_rejected + ["reference_chosen"] * facts.needs_reference
    for side in needed:
        with pytest.raises(ValueError, match="were not computed"):
            objective.loss(losses(objective, with_class_image=facts.needs_class_images, without=side))
    without_class_image = objective.loss(replace(given, prior=None))
    assert torch.equal(objective.loss(replace(given, prior=torch.ones(PAIRS))), without_class_image) == (
        not facts.needs_class_images
    )


@pytest.mark.parametrize("name", METHODS)
def test_a_run_takes_the_data_that_the_facts_say(name: MethodName) -> None:
    requirements, facts = recipe.requirements_of(method_of(name)), METHODS[name]
    assert (requirements.rejected, requirements.class_images > 0) == (facts.needs_rejected, facts.needs_class_images)


def test_the_estimates_cost_follows_from_the_facts() -> None:
    """In forward passes of one image: each trained image twice, there and back, and each of the base once."""
    costs = {name: (facts.step_cost, facts.trained_images) for name, facts in METHODS.items() if name != "sft"}
    assert costs.items() >= {"mapo": (4.0, 2), "dpo": (6.0, 2), "dco": (3.0, 1), "dreambooth": (4.0, 2)}.items()
    assert (METHODS["sft"].step_cost, METHODS["sft"].trained_images) == (2.0, 1)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_familys_classes_are_diffusers_own(name: FamilyName) -> None:
    facts = FAMILIES[name]
    parts = getattr(diffusers, facts.pipeline).__init__.__annotations__
    assert parts[facts.denoiser].__name__ == facts.denoiser_class
    assert {one.component for one in facts.text_encoders} <= parts.keys()
    assert {one.tokenizer for one in facts.text_encoders} <= parts.keys()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_has_code_that_opens_its_bases(name: FamilyName, tmp_path: Path) -> None:
    with pytest.raises(BadRun, match=r"base\.source"):
        open_family(Base(name="none", family=name, source=str(tmp_path / "none")))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_familys_adapter_names_its_architecture(name: FamilyName) -> None:
    spec = RunSpec(base=Base(name="none", family=name, source="someone/none"), method=method_of("sft"))
    assert kohya_header(spec, "epsilon", 1024)["modelspec.architecture"] != "None/lora"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_familys_learned_word_has_a_key_for_each_of_several_encoders(name: FamilyName) -> None:
    encoders = FAMILIES[name].text_encoders
    assert [one.word is None for one in encoders] == [len(encoders) == 1] * len(encoders)


@contextmanager
def without_row(table: dict[str, object], row: str) -> Iterator[None]:
    """Afterwards the rows are in their order again, which messages and pages follow."""
    whole = dict(table)
    del table[row]
    try:
        yield
    finally:
        table.clear()
        table.update(whole)


RUN_WITHOUT_A_ROW = """
import sys
from trainer.runtime.signals import StopRequest
from trainer.program import main
from trainer.spec import method_facts

del method_facts.METHODS[sys.argv[1]]
try:
    main(["run", sys.argv[2]], StopRequest())
except LookupError as error:
    sys.excepthook(LookupError, error, None)
    sys.exit(int("torch" in sys.modules))
"""


def test_a_run_whose_method_lacks_its_facts_fails_by_name_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    directory = save_run(tmp_path / "run", tmp_path / "base")
    arguments = [sys.executable, "-c", RUN_WITHOUT_A_ROW, "mapo", str(directory)]
    ended = subprocess.run(arguments, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr  # 1: torch was imported, which takes seconds
    (failed,) = (parse_event(line) for line in ended.stdout.splitlines())
    assert isinstance(failed, Failed)
    assert "the method 'mapo' has no row in METHODS (trainer/spec/method_facts.py)" in failed.message
    assert not (directory / "cache").exists()


@pytest.mark.parametrize(
    ("table", "row", "named"),
    [
        (METHODS, "mapo", "the method 'mapo' has no row in METHODS"),
        (FAMILIES, "sdxl", "the family 'sdxl' has no row in FAMILIES"),
        (RECIPES, "mapo", "the method 'mapo' has no row in RECIPES"),
    ],
)
def test_a_run_fails_by_name_before_the_caching_phase_where_a_table_lacks_its_row(
    tmp_path: Path, table: dict[str, object], row: str, named: str
) -> None:
    directory, events = save_run(tmp_path / "run", tmp_path / "base"), list[Event]()
    with without_row(table, row), pytest.raises(LookupError, match=named):
        train_alone(directory, tmp_path / "cache", None, events.append, StopRequest())
    assert {event.phase for event in events if isinstance(event, Phase)} <= {"loading"}


@pytest.mark.parametrize(
    "source", sorted((REPOSITORY / "trainer" / "objectives").glob("[a-z]*.py")), ids=lambda p: p.stem
)
def test_every_loss_has_a_test_of_its_own(source: Path) -> None:
    losses_of = re.findall(r"^def ([a-z]\w*_loss)\(", source.read_text(encoding="utf-8"), re.M)
    tested = REPOSITORY / "tests" / "trainer" / "objectives" / f"test_{source.stem}.py"
    text = tested.read_text(encoding="utf-8") if tested.exists() else ""
    assert [name for name in losses_of if f"{name}(" not in text] == [], f"{tested} should call it"
