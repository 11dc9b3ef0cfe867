"""Values as people and programs write them in the cells of a table."""

from __future__ import annotations

import re

from intake.pairs import Split

NOTHING = frozenset({"", "nan", "none", "null", "n/a", "na", "<na>", "nat", "undefined"})
# Words that name a split. What is evaluated or tested is held out of training.
SPLITS: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "devel", "development"), "validation"),
    **dict.fromkeys(("eval", "evaluation", "test", "testing", "holdout", "heldout"), "validation"),
}


def is_nothing(value: object) -> bool:
    """No value: null, not-a-number, an empty list, or one of the texts that programs write for them."""
    if value is None or value == [] or value == {}:
        return True
    if isinstance(value, str):
        return value.strip().casefold() in NOTHING
    return bool(value != value)  # NaN, of floats, of decimals and of half precision


def truth(value: object) -> bool | None:
    """A yes or no of JSON, CSV or parquet; None for anything else."""
    text = str(value).strip().casefold()
    if text in ("true", "1", "1.0", "yes", "y"):
        return True
    return False if text in ("false", "0", "0.0", "no", "n") else None


def number_of(value: object) -> float | None:
    """A number of JSON, CSV or parquet, a yes or no as 1 or 0; None for anything else, not-a-number included."""
    if isinstance(value, bool) or str(value).strip().casefold() in ("true", "false"):
        return float(str(value).strip().casefold() == "true")
    try:
        found = float(decimal_point(str(value)))
    except ValueError:
        return None
    return found if found == found else None


def decimal_point(text: str) -> str:
    """``1,5`` as ``1.5``, as spreadsheets of most of Europe write it."""
    return text.replace(",", ".") if text.count(",") == 1 and "." not in text else text


def split_of(word: str) -> Split | None:
    """The split that a word means, however it is spelt: ``Held-Out``."""
    return SPLITS.get("".join(re.findall(r"[^\W_]+", word.casefold())))


def is_address(path: str) -> bool:
    """Of the web or of a bucket: nothing that an archive holds."""
    return path.strip().casefold().startswith(("http://", "https://", "s3://", "gs://", "hf://", "ftp://"))


def text_of(value: object) -> str | None:
    """A name that may be a number: 7, 7.0 and ``7.0``, as pandas writes it, are one annotator."""
    if is_nothing(value) or not isinstance(value, str | int | float):
        return None
    text = str(value).strip()
    return text.removesuffix(".0") if text.removesuffix(".0").isdecimal() else text
