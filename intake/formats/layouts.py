"""Telling whose table it is by its columns."""

from __future__ import annotations

from collections.abc import Collection

from intake.formats.hpd import HPD_LISTS, HPD_PAIRS
from intake.formats.invoke_training import INVOKE_TRAINING
from intake.formats.judgement import Layout
from intake.formats.label_studio import LABEL_STUDIO, SHORT_LABEL_STUDIO
from intake.formats.own import OWN
from intake.formats.pick_a_pic import PICK_A_PIC

LAYOUTS = (OWN, INVOKE_TRAINING, HPD_PAIRS, HPD_LISTS, LABEL_STUDIO, SHORT_LABEL_STUDIO, PICK_A_PIC)


def layout_of(columns: Collection[str]) -> Layout | None:
    """The first whose columns are all there."""
    return next((layout for layout in LAYOUTS if layout.columns <= set(columns)), None)
