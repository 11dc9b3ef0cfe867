"""Telling whose table it is by its columns."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from intake.errors import MetadataError
from intake.formats.columns import PREFERENCES, PROMPTS, by_plain, image_pair, nearest, ranking, shown
from intake.formats.comparisons import ARGILLA, COMPARISON, SIDES, more_than_two
from intake.formats.hpd import HPD_LISTS, HPD_PAIRS
from intake.formats.invoke_training import INVOKE_TRAINING
from intake.formats.judgement import Layout, Names
from intake.formats.label_studio import LABEL_STUDIO, SHORT_LABEL_STUDIO
from intake.formats.own import OWN
from intake.formats.pick_a_pic import PICK_A_PIC

# The first whose columns are all there is taken: those of one tool before those that many names may mean.
LAYOUTS = (
    INVOKE_TRAINING, HPD_PAIRS, LABEL_STUDIO, SHORT_LABEL_STUDIO, PICK_A_PIC, ARGILLA, COMPARISON, HPD_LISTS, OWN,
)  # fmt: skip


@dataclass(frozen=True)
class Match:
    """A table's layout, and the table's own names of its columns."""

    layout: Layout
    names: Names


def layout_of(columns: Collection[str]) -> Match | None:
    """The first whose columns are all there; a table that names ``chosen`` and ``rejected`` is ours."""
    ours = OWN.names(columns) if {"chosen", "rejected"} <= by_plain(columns).keys() else None
    if ours is not None:
        return Match(OWN, ours)
    for layout in LAYOUTS:
        names = layout.names(columns)
        if names is not None:
            return Match(layout, names)
    return None


def no_layout(columns: Collection[str]) -> MetadataError:
    """Why a table with these columns is none that intake reads: what is missing, what is there, what may be meant."""
    own, there = by_plain(columns), f"its columns are {shown(columns) or 'none'}"
    if more_than_two(columns):
        reason = "compares more than two images a row; write a row for every two of them, with prompt, chosen, rejected"
    elif image_pair(columns, SIDES) is not None and any(name in own for name in PROMPTS):
        reason = (
            "has two images a row and no column that says which is preferred; add a column winner with the name of "
            "one of the two columns, or call them chosen and rejected"
        )
    elif (ranked := ranking(columns)) and OWN.names([name for name in columns if name not in ranked]):
        reason = (
            f"has one image a row and a column {ranked[0]!r} that says some are worse than others; write a row for"
            " every two images of a prompt, with prompt, chosen, rejected"
        )
    else:
        reason = f"has no column {_missing(columns)}; add it, or use the columns of another format"
    return MetadataError("metadata_columns", f"{reason} (docs/reference/formats.md); {there}")


def _missing(columns: Collection[str]) -> str:
    own = by_plain(columns)
    absent = [] if any(name in own for name in PROMPTS) else ["prompt"]
    if OWN.names([*columns, "prompt"]) is None and image_pair(columns, (*PREFERENCES, *SIDES)) is None:
        absent.append("chosen")
    named = []
    for name in absent or ["chosen"]:
        near = nearest(name, columns)
        named.append(f"{name} ({near!r} may be it)" if near is not None else name)
    return " and no column ".join(named)
