"""``python -m tests.docs.tables`` writes the pages' tables from what they are about: methods and families from the
trainer's facts, estimates from the API, mutants from the kept reports. ``--check`` only says whether they are as they
should be.

A table stands between ``<!-- table NAME -->`` and ``<!-- end of table -->``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from api.fine_tuning.estimates.estimate import estimate
from api.fine_tuning.estimates.planned import planned
from store.settings import REPOSITORY, Settings
from trainer.spec.family_facts import FAMILIES
from trainer.spec.method_facts import METHODS
from trainer.spec.methods import Hyperparameters, Method
from trainer.spec.run import RunSpec

ROOT = Path(__file__).resolve().parent.parent.parent
MUTANTS = ROOT / "tests" / "mutants" / "results"
PAGES = (
    "README.md",
    "docs/concepts/methods.md",
    "docs/reference/http-api.md",
    "docs/reference/settings.md",
    "docs/guides/train-sdxl-on-a-gpu.md",
    "docs/guides/trainer-alone.md",
    "docs/development/testing.md",
)
BETWEEN = re.compile(r"(<!-- table ([a-z-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
HINT = "is out of date: python -m tests.docs.tables\n"


def methods_in_short() -> Iterator[str]:
    yield from ("| `method` | for |", "|---|---|")
    for name, facts in METHODS.items():
        yield f"| `{name}` | {facts.use_when} |"


def methods() -> Iterator[str]:
    yield from ("| | trains on | forward passes a pair | reach for it when |", "|---|---|---|---|")
    for name, facts in METHODS.items():
        yield f"| [{name}](#{name}) | {facts.inputs} | {facts.forward_passes} | {facts.use_when} |"


def betas() -> Iterator[str]:
    yield from (f"| | {' | '.join(FAMILIES)} |", f"|---|{'---|' * len(FAMILIES)}")
    for name, method in METHODS.items():
        if method.auto_beta is not None:
            figures = (f"{method.auto_beta(family):g}" for family in FAMILIES.values())
            yield f"| [{name}](#{name}) | {' | '.join(figures)} |"


def hyperparameters() -> Iterator[str]:
    """One row a hyperparameter; "all" are those that every method has."""
    yield from ("| method | hyperparameter | meaning |", "|---|---|---|")
    of_methods = {f"`{name}`": fields for name, fields in own_hyperparameters().items()}
    for method, fields in {**of_methods, "all": Hyperparameters.model_json_schema()["properties"]}.items():
        for field, schema in fields.items():
            yield f"| {method} | `{field}`{choices(schema)} | {schema['description']} |"
        if not fields:
            yield f"| {method} | none of its own | |"


def families() -> Iterator[str]:
    yield from (
        "| `family` | bases | size | sides divide by | longest prompt | text encoders | pipeline |",
        "|---|---|---|---|---|---|---|",
    )
    for name, facts in FAMILIES.items():
        encoders = "can be trained" if facts.text_encoders else "stay as they are"
        size = f"{facts.native_size} x {facts.native_size}"
        yield (
            f"| `{name}` | {facts.title} | {size} | {facts.size_multiple} | {facts.longest_prompt} tokens | {encoders} "
            f"| `{facts.pipeline}` |"
        )


def sdxl_estimates() -> Iterator[str]:
    """Of a job on 500 pairs for 1,000 steps, where no job on the base has been measured."""
    yield from ("| method | GPU memory | time |", "|---|---|---|")
    base = {"name": "sdxl", "family": "sdxl", "source": "someone/sdxl", "revision": "0" * 40}
    for name in METHODS:
        hyperparameters = {"max_steps": 1000} | ({"class_prompt": "a dog"} if name == "dreambooth" else {})
        method = {"type": name, name: {"hyperparameters": hyperparameters}}
        found = estimate(planned(RunSpec.model_validate({"base": base, "method": method}), 500, 0), [])
        assert found.seconds is not None
        yield f"| `{name}` | {found.peak_memory_bytes / 2**30:.1f} GiB | {found.seconds / 3600:.1f} h |"


def mutants() -> Iterator[str]:
    yield from (
        "| package | mutants | killed by a test | timed out | argued equivalent | survived | no test runs the line |",
        "|---|---|---|---|---|---|---|",
    )
    for path in sorted(MUTANTS.glob("*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        found = Counter(row["verdict"] for row in report["mutants"])
        counts = (found[verdict] for verdict in ("killed", "timeout", "equivalent", "survived", "unexecuted"))
        yield f"| `{report['package']}` | {report['number']} | {' | '.join(map(str, counts))} |"


def settings() -> Iterator[str]:
    yield from ("| variable | default | meaning |", "|---|---|---|")
    for name, field in Settings.model_fields.items():
        yield f"| `PAIRTUNE_{name.upper()}` | {default_of(name)} | {field.description} |"


def default_of(name: str) -> str:
    """As one sets it: a path is shown from the directory where pairtune lies, a secret has no default."""
    value = Settings.model_fields[name].get_default()
    if value is None or value == "":
        return "none"
    if isinstance(value, Path) and value.is_absolute():
        return f"`{value.relative_to(REPOSITORY)}`"
    shown = str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
    return f"`{shown}`{in_units(name, value)}"


def in_units(name: str, value: object) -> str:
    """ " (1 GiB)" after a number of bytes."""
    if not name.endswith("bytes") or not isinstance(value, int):
        return ""
    unit, size = next((unit, size) for unit, size in (("TiB", 2**40), ("GiB", 2**30)) if value >= size)
    return f" ({value / size:g} {unit})"


TABLES: Mapping[str, Callable[[], Iterator[str]]] = {
    "methods-in-short": methods_in_short,
    "methods": methods,
    "betas": betas,
    "hyperparameters": hyperparameters,
    "families": families,
    "sdxl-estimates": sdxl_estimates,
    "mutants": mutants,
    "settings": settings,
}


def own_hyperparameters() -> dict[str, dict[str, Any]]:
    """The JSON schema of every method's own hyperparameters, by method and field."""
    union, _ = get_args(Method)
    fields = {}
    for choice in get_args(union):
        (name,) = get_args(choice.model_fields["type"].annotation)
        model = choice.model_fields[name].annotation.model_fields["hyperparameters"].annotation
        properties = model.model_json_schema()["properties"]
        fields[name] = {field: properties[field] for field in properties if field not in Hyperparameters.model_fields}
    return fields


def choices(schema: Mapping[str, Any]) -> str:
    """ " (paper, reference-code)" for a field of fixed values."""
    for arm in (schema, *schema.get("anyOf", ())):
        if "enum" in arm:
            return f" ({', '.join(arm['enum'])})"
    return ""


def filled(text: str) -> str:
    return BETWEEN.sub(lambda found: found[1] + "\n".join(TABLES[found[2]]()) + "\n" + found[3], text)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a page is out of date")
    check = parser.parse_args(arguments).check
    stale = []
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        if (wanted := filled(text)) == text:
            continue
        stale.append(page)
        if not check:
            (ROOT / page).write_text(wanted, encoding="utf-8")
    if check:
        sys.stderr.writelines(f"{page} {HINT}" for page in stale)
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
