"""docs/reference/formats.md has every format that intake recognises, by the name that the report gives it."""

from __future__ import annotations

import re

import pytest

from intake.formats import layouts
from intake.formats.label_studio import SHORT_LABEL_STUDIO
from intake.formats.own import OWN
from store.settings import REPOSITORY

pytestmark = pytest.mark.unit
PAGE = (REPOSITORY / "docs" / "reference" / "formats.md").read_text(encoding="utf-8")
WITHOUT_TABLE = {"archive/two-folders", "archive/image-folder", "archive/webdataset"}
OWN_TABLES = {"archive/metadata.jsonl"}  # a table of our columns is named by its file
IN_PARQUET = {"parquet/pick-a-pic", "parquet/pairtune"}  # any format may be; these are the usual ones


def test_the_page_has_every_format_by_the_name_in_the_report_and_no_other() -> None:
    tables = {f"archive/{one.name}" for one in layouts.LAYOUTS if one not in (OWN, SHORT_LABEL_STUDIO)}
    named = set(re.findall(r"^\| `((?:archive|parquet)/[\w.-]+)`", PAGE, re.MULTILINE))
    assert named == tables | IN_PARQUET | WITHOUT_TABLE | OWN_TABLES
