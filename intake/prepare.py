"""From an uploaded archive to prepared pairs: list, read the metadata, normalise each image once, pair up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from intake.archive import open_archive
from intake.entries import Entry, accept_entries, canonical, collision_key
from intake.errors import Refused
from intake.findings import Code, Finding, FindingList, printable
from intake.image_folder import ImageFolder, StoredImage
from intake.limits import Limits
from intake.metadata import find_metadata, read_rows
from intake.pairs import Prepared, PreparedPair
from intake.report import Report
from intake.review import Review, ReviewedPair
from intake.rows import Row

DEFAULT_LIMITS = Limits()


def prepare_archive(archive: Path, work_directory: Path, limits: Limits = DEFAULT_LIMITS) -> Prepared:
    """Read an uploaded zip, tar or tar.gz; images go to ``work_directory``/images, nothing anywhere else.

    Whatever is wrong with the upload is a finding, all of them at once. Only the environment raises: OSError when
    the archive cannot be opened or the work directory cannot be written (a full disk).
    """
    findings = FindingList(limits.findings)
    images = ImageFolder(work_directory / "images", limits)
    pairs: list[PreparedPair] = []
    dropped: dict[int, Code] = {}
    format_, review = "unknown", Review("")
    try:
        with open_archive(archive, work_directory, limits) as entries:
            format_ = "archive"
            files, refused_entries = accept_entries(entries, limits)
            findings.extend(refused_entries)
            metadata = find_metadata(files)
            format_ = f"archive/{metadata.rpartition('/')[2]}"
            review = Review(printable(metadata))
            for item in _pairs(metadata, files, images, limits):
                if isinstance(item, ReviewedPair):
                    pairs.append(item.pair)
                    findings.extend(list(review.add(item)))
                else:
                    findings.add(item)
                    if item.row is not None and item.severity == "error":
                        dropped.setdefault(item.row, item.code)
            findings.extend(list(review.conclude()))
            findings.extend(_without_rejected(pairs, printable(metadata)))
    except Refused as refused:
        findings.add(Finding(refused.code, "error", f"The archive {refused.reason}."))
    report = Report(
        format=format_,
        rows=len(pairs) + len(dropped),
        kept=len(pairs),
        dropped=dict(Counter(dropped.values())),
        figures=review.figures(),
        findings=tuple(findings),
    )
    return Prepared(tuple(pairs), images.written, report)


def _pairs(
    metadata: str, files: Mapping[str, Entry], images: ImageFolder, limits: Limits
) -> Iterator[ReviewedPair | Finding]:
    lookup = _Lookup(files, metadata.rpartition("/")[0])
    entry = files[metadata]
    for item in read_rows(metadata, entry.read, entry.size, limits):
        if isinstance(item, Finding):
            yield item
        else:
            yield from _pair(*item, printable(metadata), lookup, images)


def _pair(
    number: int, row: Row, metadata: str, lookup: _Lookup, images: ImageFolder
) -> Iterator[ReviewedPair | Finding]:
    """The pair, or what is wrong with its images; a warning may stand before a pair."""
    named = {"chosen": row.chosen} | ({"rejected": row.rejected} if row.rejected is not None else {})
    stored: dict[str, StoredImage] = {}
    for column, path in named.items():
        where = f"{metadata} row {number}: {column} image {printable(path)}"
        for item in _image(path, where, number, lookup, images):
            if isinstance(item, Finding):
                yield item
            else:
                stored[column] = item
    if stored.keys() != named.keys():
        return
    chosen, rejected = stored["chosen"], stored.get("rejected")
    if rejected is not None and chosen.sha256 == rejected.sha256:
        text = f"{metadata} row {number}: chosen and rejected are the same image; correct a path or remove the row."
        yield Finding("pair_identical", "error", text, metadata, number)
    else:
        other = rejected.sha256 if rejected is not None else None
        pair = PreparedPair(number, row.prompt, chosen.sha256, other, row.split, row.weight, row.annotator, row.seed)
        yield ReviewedPair(pair, chosen, rejected)


def _without_rejected(pairs: Sequence[PreparedPair], metadata: str) -> list[Finding]:
    """One warning for all of them: in a data set of chosen images it is every pair."""
    count = sum(pair.rejected is None for pair in pairs)
    if count == 0:
        return []
    text = (
        f"{metadata}: {count} of {len(pairs)} pairs have no rejected image; the base model draws the ones that a job"
        " looks at from their prompts, before it trains."
    )
    return [Finding("rejected_missing", "warning", text, metadata)]


def _image(path: str, where: str, number: int, lookup: _Lookup, images: ImageFolder) -> Iterator[StoredImage | Finding]:
    entry = lookup.find(path)
    if entry is None:
        text = f"{where} is not in the archive; {lookup.hint(path)}"
        yield Finding("image_missing", "error", text, printable(path), number)
        return
    image = images.add(entry)
    if isinstance(image, Refused):
        yield Finding(image.code, "error", f"{where} {image.reason}.", printable(path), number)
        return
    if image.profile_ignored:
        text = f"{where} has a colour profile that cannot be applied and was taken as sRGB; check its colours."
        yield Finding("image_profile", "warning", text, printable(path), number)
    yield image


class _Lookup:
    """The archive's files by the paths that rows give: beside the metadata file, else from the top."""

    def __init__(self, files: Mapping[str, Entry], folder: str) -> None:
        self._files = files
        self._prefixes = (f"{folder}/", "") if folder else ("",)
        self._near = {collision_key(name): name for name in files}

    def find(self, path: str) -> Entry | None:
        name = canonical(path)
        found = (self._files.get(f"{prefix}{name}") for prefix in self._prefixes)
        return next((entry for entry in found if entry is not None), None)

    def hint(self, path: str) -> str:
        """What to do about a path that names no file: a near miss in case or slashes is pointed out."""
        name = canonical(path.replace("\\", "/"))
        near = (self._near.get(collision_key(f"{prefix}{name}")) for prefix in self._prefixes)
        meant = next((name for name in near if name is not None), None)
        return f"did you mean {printable(meant)}?" if meant else "add the file or correct the path."
