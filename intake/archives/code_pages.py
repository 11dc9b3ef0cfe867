"""Names that an archive stores in the code page of a country: which one it is, and what they say.

Old zips do not say in which code page their names are. The archive's own tables tell, where they name its files;
otherwise letters do: read in the wrong page, a word mixes scripts, letters with symbols, or common with rare signs.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace

from intake.archives.entries import Entry
from intake.errors import ArchiveError
from intake.findings import Finding, counted, printable
from intake.limits import Limits

# As Python names them, and by the bytes that begin a common sign, where a page has two bytes a sign.
CODE_PAGES: Mapping[str, range | None] = {
    "cp437": None,
    "cp850": None,
    "cp1252": None,
    "cp866": None,
    "cp1251": None,
    "cp852": None,
    "cp1250": None,
    "cp932": range(0x82, 0x98),
    "gbk": range(0xB0, 0xD8),
    "cp949": range(0xB0, 0xC9),
    "big5": range(0xA4, 0xC7),
}
_ALPHABETS = ("LATIN", "CYRILLIC", "GREEK")
_TABLES = (".jsonl", ".json", ".csv", ".tsv", ".txt")
_SAMPLED = 50  # names, of which the page is found
_MAX_SEARCHED = 10  # of them, for which the tables are searched
_SEARCHED = 8 * 2**20  # bytes of tables
_CLOSE = 0.25  # points a byte: another page that says as much may be the right one


def with_readable_names(entries: Sequence[Entry], limits: Limits) -> tuple[list[Entry], list[Finding]]:
    """The entries with names in Unicode, and a warning where a code page had to be found.

    Names come with surrogates for the bytes that are no UTF-8; they stay as they are if no page makes words of them.
    """
    foreign = [raw for entry in entries if (raw := _foreign(entry.name)) is not None]
    if not foreign:
        return list(entries), []
    pages = _pages(foreign, _tables(entries, limits))
    if not pages:
        return list(entries), []
    page, others = pages[0], pages[1:]
    renamed = [
        entry if (raw := _foreign(entry.name)) is None else replace(entry, name=raw.decode(page)) for entry in entries
    ]
    return renamed, [_warning(len(foreign), foreign[0].decode(page), page, others)]


def _warning(count: int, name: str, page: str, others: Sequence[str]) -> Finding:
    shown, names = printable(name), counted(count, "name")
    maybe = f" (or {' or '.join(others)})" if others else ""
    verb, pronoun = ("is", "It was") if count == 1 else ("are", "They were")
    text = (
        f"{names} in the archive {verb} not in UTF-8. {pronoun} read as {page}{maybe}, for example {shown}. If that is"
        " wrong, pack the folder again with names in UTF-8, e.g. as tar, or in 7-Zip with the parameter cu=on."
    )
    return Finding("archive_path", "warning", text, shown)


def _foreign(name: str) -> bytes | None:
    """The bytes of a name that is no UTF-8."""
    if name.isascii() or not any("\udc80" <= character <= "\udcff" for character in name):
        return None
    return name.encode("utf-8", "surrogateescape")


def _tables(entries: Sequence[Entry], limits: Limits) -> list[bytes]:
    """The texts in which names of files may stand, as far as they can be read."""
    texts: list[bytes] = []
    left = _SEARCHED
    for entry in entries:
        if (
            left
            and entry.kind == "file"
            and entry.name.lower().endswith(_TABLES)
            and entry.size <= limits.metadata_bytes
        ):
            try:
                texts.append(entry.read()[:left])
            except ArchiveError:
                continue  # whoever needs the entry reports it
            left -= len(texts[-1])
    return texts


def _pages(names: Sequence[bytes], texts: Sequence[bytes]) -> list[str]:
    """The code page that the names are in, and others that are nearly as likely; none if no page makes words."""
    sample = names[:: max(1, len(names) // _SAMPLED)][:_SAMPLED]
    found: dict[str, tuple[int, float]] = {}
    for page, common in CODE_PAGES.items():
        try:
            decoded = [name.decode(page) for name in names]
        except UnicodeDecodeError:
            continue
        read = decoded[:: max(1, len(names) // _SAMPLED)][:_SAMPLED]
        bytes_ = sum(byte > 0x7F for name in sample for byte in name)
        found[page] = (
            sum(_stands_in(name, texts) for name in read[:_MAX_SEARCHED]),
            sum(_points(name, page, common) for name in read) / bytes_,
        )
    ranked = sorted(found, key=lambda page: found[page], reverse=True)
    if not ranked or found[ranked[0]] < (0, 0.5):
        return []
    said, points = found[ranked[0]]
    same = {tuple(name.decode(ranked[0]) for name in sample)}
    close = []
    for page in ranked[1:]:
        read_as = tuple(name.decode(page) for name in sample)
        if found[page][0] == said == 0 and found[page][1] > points - _CLOSE and read_as not in same:
            same.add(read_as)
            close.append(page)
    return [ranked[0], *close]


def _stands_in(name: str, texts: Sequence[bytes]) -> bool:
    """Whether a text has the last part of the path that tells pages apart, which may be a folder's name."""
    last = next((part for part in reversed(re.split(r"[/\\]", name)) if not part.isascii()), name)
    spellings = {last.encode("utf-8"), json.dumps(last)[1:-1].encode("ascii")}
    return any(spelling in text for text in texts for spelling in spellings)


def _points(name: str, page: str, common: range | None) -> float:
    """Up to 1.1 for each byte above ASCII that became a letter of a plausible word; less for anything else."""
    points, before, alphabet = 0.0, "", ""
    for character in name:
        script = unicodedata.name(character, "").partition(" ")[0] if character.isalpha() else ""
        if not character.isascii():
            points += _sign_points(character, script, page, common)
        if script and alphabet:
            points -= 3 * (script != alphabet and {script, alphabet} & {*_ALPHABETS} != set())  # two in one word
            points -= 1.5 * (before.islower() and character.isupper() and not character.isascii())
            points -= script == "LATIN" and not (before.isascii() or character.isascii())  # rare: two accents in a row
        alphabet, before = (script or alphabet, character) if character.isalpha() else ("", "")
    return points


def _sign_points(character: str, script: str, page: str, common: range | None) -> float:
    encoded = character.encode(page)
    if script in _ALPHABETS and common is None:
        return 1.0
    if common is None or len(encoded) == 1:  # symbols, box drawings, half-width katakana
        return -2.0
    if script == "HANGUL":
        # All common Hangul are also common Chinese, few Chinese words are all Hangul.
        return 2.2 if encoded[0] in common and encoded[1] > 0xA0 else -1.0
    if script in ("HIRAGANA", "KATAKANA"):
        return 2.0
    usual = encoded[0] in common and page != "cp949" and (page != "gbk" or encoded[1] > 0xA0)
    return 1.8 if script == "CJK" and usual else -1.0
