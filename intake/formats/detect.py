"""Detect the format of an archive by its contents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from intake.archives.entries import Entry, Listing
from intake.archives.lookup import Lookup
from intake.errors import MetadataError
from intake.findings import Finding, printable
from intake.formats.folders.captions import Captions
from intake.formats.folders.folders import (
    SUFFIXES,
    Pictures,
    marked_in,
    pairs_by_name,
    pictures_of,
    subject_pictures,
)
from intake.formats.folders.names import called_side, not_chosen, set_aside, split_of, stem, suffix
from intake.formats.folders.webdataset import samples
from intake.formats.judgement import Judgement, JudgementSource, row_finding
from intake.formats.tables.shards import read_tables, shards_in, split_of_table
from intake.formats.tables.tables import NAME, has_known_columns, read_table, several, tables_in
from intake.limits import Limits
from intake.pairs import Split
from intake.report import LeftOut
from intake.rows import REQUIRED

_TABLES = ("csv", "tsv", "jsonl", "ndjson", "parquet", "arrow")
SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")


def detect(listing: Listing, limits: Limits, prompt: str | None) -> tuple[JudgementSource, Lookup]:
    """Tables whose columns are a format's, then names that say chosen and rejected, then pictures with captions.

    A table called metadata is read where there are several, and where its columns are no format's, which it then says.
    Other tables without known columns (a tool's settings) decide nothing as long as the images say what they are.
    ``prompt`` is for images that come without one. What is said of an image by its path holds for every format.
    Raises MetadataError.
    """
    source, folder = _detected(listing.files, limits, prompt)
    lookup = Lookup(listing.files, folder, listing.generated)
    judgements = _by_path(source, lookup, listing.files)
    if source.of_table:
        judgements = _beside_captions(replace(source, judgements=judgements), lookup, listing.files, limits)
    return replace(source, judgements=judgements), lookup


def _detected(files: Mapping[str, Entry], limits: Limits, prompt: str | None) -> tuple[JudgementSource, str]:
    """And the folder where a table's paths begin. Raises MetadataError."""
    tables = _without_sidecars(tables_in(files), files)
    known = [table for table in tables if has_known_columns(table, files[table], limits)]
    named = [table for table in _named(tables) if table in known or not _is_object(files[table])]
    shards = shards_in(files)
    named = named or _named([shard for shard in shards if shard.count("/") <= 1])
    if not named and shards:
        return replace(read_tables(shards, files, limits), of_table=True), ""
    if named or known:
        return _tables(named or known, files, limits)
    images = _without_table(pictures_of(files), limits, prompt)
    sheets = sorted(name for name in files if name.casefold().endswith(SPREADSHEETS))
    if sheets and (images is None or prompt is not None or _named(sheets)):
        reason = f"holds a spreadsheet ({printable(sheets[0])}), which intake does not read; save it as CSV in UTF-8"
        raise MetadataError("metadata_unreadable", reason)
    if images is not None:
        return images, ""
    if tables:
        return _tables(tables, files, limits)
    raise MetadataError(
        "metadata_missing",
        "holds no metadata.jsonl or metadata.csv at the top or in its top folder; add one with the columns"
        f" {', '.join(REQUIRED)} and, where there is one, rejected. Images alone need captions"
        " (docs/reference/formats.md)",
    )


def _without_table(pictures: Pictures, limits: Limits, prompt: str | None) -> JudgementSource | None:
    return samples(pictures) or pairs_by_name(pictures, limits, prompt) or subject_pictures(pictures, limits, prompt)


def _without_sidecars(tables: Sequence[str], files: Collection[str]) -> list[str]:
    """Without what says something of one image: ``1.png.json``, or ``1.json`` beside ``1.chosen.png``."""
    about = {name for name in files if suffix(name) in SUFFIXES}
    about |= {
        f"{folder}{slash}{name.partition('.')[0]}" for folder, slash, name in (one.rpartition("/") for one in about)
    }
    return [table for table in tables if stem(table) not in about]


def _named(tables: Sequence[str]) -> list[str]:
    """Tables called metadata: at the top, or in folders there."""
    named = [table for table in tables if stem(table.rpartition("/")[2]).casefold() == NAME]
    return [table for table in named if "/" not in table] or named


def _is_object(entry: Entry) -> bool:
    """Of JSON that is one object, which is no table of one row, but what tools write of a data folder."""
    return entry.name.lower().endswith(".json") and entry.head(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")


def _tables(tables: Sequence[str], files: Mapping[str, Entry], limits: Limits) -> tuple[JudgementSource, str]:
    """The only one, or one a split. Raises MetadataError where there are several others."""
    if len(tables) == 1 and tables[0] not in shards_in(files):
        [name] = tables
        source = read_table(name, files[name], limits, files)
        return replace(source, used={name}, of_table=True), name.rpartition("/")[0]
    if len(tables) > 1 and None in map(split_of_table, tables):
        raise several(tables)
    return replace(read_tables(sorted(tables), files, limits), of_table=True), ""


def _beside_captions(
    source: JudgementSource, lookup: Lookup, files: Mapping[str, Entry], limits: Limits
) -> Iterator[Judgement | Finding]:
    """The judgements of a table, whose prompts are taken; a warning if captions beside the images say another."""
    others = {path: entry for path, entry in files.items() if path not in source.used and suffix(path) not in _TABLES}
    if all(suffix(path) in SUFFIXES for path in others):
        yield from source.judgements
        return
    captions = Captions(others, pictures_of(others).paths, limits, None)
    for item in source.judgements:
        if isinstance(item, Judgement) and isinstance(prompt := item.fields.get("prompt"), str):
            captions.compare(prompt, source.file, list(_paths(item, lookup)))
        yield item
    yield from captions.disagreements(source.file)


def _paths(item: Judgement, lookup: Lookup) -> Iterator[str]:
    """Of the images that are files of the archive."""
    for side in ("chosen", "rejected"):
        path = item.fields.get(side)
        if isinstance(path, str) and path not in item.held:
            entry = lookup.find(path.strip(), item.search, item.folder)
            if entry is not None:
                yield entry.name


def _by_path(source: JudgementSource, lookup: Lookup, files: Mapping[str, Entry]) -> Iterator[Judgement | Finding]:
    """Pairs whose images all lie in a folder that is named as a split belong to it, unless their row says another.
    An image alone that is called rejected, a mask or a regularisation image is not what anybody chose, whatever table
    names it, and of a pair its names must not say the opposite of its row."""
    split_by_folder: Counter[Split | None] = Counter()
    rejected: set[str] | None = None
    aside: dict[str, LeftOut] = {}
    for item in source.judgements:
        if isinstance(item, Finding):
            yield item
            continue
        paths = list(_paths(item, lookup))
        alone = len(paths) == 1 and not item.fields.get("rejected")
        if alone and rejected is None:
            images = [name for name in files if suffix(name) in SUFFIXES]
            rejected = {one.path for one in marked_in(images) if one.side == "rejected"}
            aside = set_aside(images)
        if alone and (why := not_chosen(paths[0], rejected or (), aside)) is not None:
            reason = f"{printable(paths[0])} is called {why} and stands alone, so it is no image that was chosen"
            yield row_finding(item.file or source.file, item.number, f"{reason}; name its pair, or remove the row")
            continue
        if [called_side(path) for path in paths] == ["rejected", "chosen"]:
            reason = f"has {printable(paths[0])} as the chosen image and {printable(paths[1])} as the rejected one"
            reason += ", and their names say the opposite; swap the two, or rename the files"
            yield row_finding(item.file or source.file, item.number, reason)
            continue
        splits = {split_of(path) for path in paths}
        split = splits.pop() if len(splits) == 1 else None
        if item.fields.get("split") or split is None:
            split_by_folder[None] += 1
            yield item
        else:
            split_by_folder[split] += 1
            yield replace(item, fields={**item.fields, "split": split})
    if split_by_folder and split_by_folder["validation"] == split_by_folder.total():
        text = (
            f"{source.file}: the images are all in folders that hold pairs out, by their names (test, val, dev): there"
        )
        yield Finding("pairs_held_out", "warning", f"{text} is nothing to train on.", source.file)
