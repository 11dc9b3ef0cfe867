"""From an upload to prepared pairs: detect its format, normalise each image once, pair them; row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from intake.archives.archive import open_archive
from intake.archives.code_pages import with_readable_names
from intake.archives.entries import Listing, accept_entries, with_slashes
from intake.archives.lookup import Lookup
from intake.errors import ArchiveError, IntakeError
from intake.findings import Code, Finding, FindingList, counted, printable
from intake.formats.detect import detect
from intake.formats.judgement import Judgement, JudgementSource
from intake.formats.tables.parquet import SIGNATURE, read_parquet
from intake.images.image_folder import ImageFolder, StoredImage
from intake.left_out import LeftOutFiles
from intake.limits import Limits
from intake.pairs import PairsFile, PreparedPair, PreparedUpload
from intake.policy import Policy
from intake.report import LeftOut, Report
from intake.review import Review, ReviewedPair
from intake.rows import Row, parse_row
from intake.values import is_address


@dataclass(frozen=True)
class Progress:
    """``total`` is the number of rows where it is known before the last is read.

    Once all are read, ``stored`` of the upload's ``images`` are in the store; until then there is no ``images``.
    """

    format: str
    rows: int
    kept: int
    total: int | None
    stored: int = 0
    images: int | None = None


def prepare_upload(
    upload: Path,
    work_directory: Path,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    policy: Policy = Policy(),  # noqa: B008
    progress: Callable[[Progress], None] = lambda _: None,
) -> PreparedUpload:
    """Read an uploaded archive or parquet file; images go to ``work_directory``/images, pairs beside it.

    Whatever is wrong with the upload is a finding, all of them at once. Only the environment raises: OSError when
    the upload cannot be opened or the work directory cannot be written (a full disk). ``progress`` is called after
    every row.
    """
    preparation = _Preparation(work_directory, limits, policy, progress, upload.stat().st_size)
    try:
        with _opened(upload, work_directory, limits, policy, preparation) as (source, lookup, listing):
            preparation.read(source, lookup, listing)
    except IntakeError as error:
        preparation.findings.add(Finding(error.code, "error", f"The upload {error.reason}."))
    return preparation.conclude()


@contextmanager
def _opened(
    upload: Path, work_directory: Path, limits: Limits, policy: Policy, preparation: _Preparation
) -> Iterator[tuple[JudgementSource, Lookup, Listing]]:
    """What can be read of it, inside the ``with`` block. Raises IntakeError."""
    with upload.open("rb") as file:
        start = file.read(len(SIGNATURE))
    if start == SIGNATURE:
        preparation.format = "parquet"
        yield read_parquet(upload, limits), Lookup({}), Listing()
        return
    with open_archive(upload, work_directory, limits) as entries:
        preparation.format = "archive"
        named, code_page = with_readable_names(entries, limits)
        preparation.findings.extend(code_page)
        listing = accept_entries(with_slashes(named), limits)
        preparation.findings.extend(listing.findings)
        yield *detect(listing, limits, policy.prompt), listing


class _Preparation:
    """What has been read so far: counts, findings, images and pairs."""

    def __init__(
        self, work_directory: Path, limits: Limits, policy: Policy, progress: Callable[[Progress], None], size: int
    ) -> None:
        """``size``: of the upload, in bytes."""
        self.format = "unknown"
        self.findings = FindingList(limits.findings, policy)
        self._limits, self._policy, self._progress, self._size = limits, policy, progress, size
        self._images = ImageFolder(work_directory / "images", limits)
        self._pairs_path = work_directory / "pairs.jsonl"
        self._pairs = PairsFile(self._pairs_path)
        self._review = Review("")
        self._rows = 0
        self._dropped: Counter[Code] = Counter()
        self._tied = self._ties_kept = 0
        self._first_tie: int | None = None
        self._left_out: dict[LeftOut, int] = {}
        self._found = self._missing = 0  # images that rows name by a path
        self._first_missing = ""

    def read(self, source: JudgementSource, lookup: Lookup, listing: Listing) -> None:
        self.format = source.format
        left_out = LeftOutFiles(listing, lookup)
        self._review = Review(source.file)
        for item in source.judgements:
            if isinstance(item, Finding):
                self._refuse(item)
            else:
                self._rows += 1
                count = self._pairs.count
                self._judge(item, item.file or source.file, lookup)
                left_out.note(item, kept=self._pairs.count > count)
            if self._rows > self._limits.rows:
                reason = f"has more than {self._limits.rows:,} rows; upload them in several parts"
                raise ArchiveError("archive_limits", reason)
            self._require_pixels()
            self._progress(Progress(source.format, self._rows, self._pairs.count, source.total))
        self.findings.extend(self._review.conclude())
        self.findings.extend(self._all_missing(source.file))
        self.findings.extend(self._without_rejected(source.file))
        self.findings.extend(self._about_ties(source.file))
        self._left_out = left_out.counts(source)

    def _require_pixels(self) -> None:
        """Decoding takes processor time by the pixel, however few bytes the images have."""
        pixels, limits = self._images.pixels, self._limits
        if pixels > limits.upload_pixels:
            reason = f"has images of more than {limits.upload_pixels:,} pixels together; upload it in several parts"
            raise ArchiveError("archive_limits", reason)
        if pixels > max(limits.pixels_per_byte_from, limits.pixels_per_byte * self._size):
            reason = (
                f"has images of more than {limits.pixels_per_byte:,} pixels for each of its bytes, "
                f"{pixels:,} pixels so far; scale the images down"
            )
            raise ArchiveError("archive_limits", reason)

    def conclude(self) -> PreparedUpload:
        self._pairs.close()
        if self._pairs.count == 0 and not self.findings.errors:
            self.findings.add(Finding("pairs_none", "error", "No row became a pair; the report says why of each."))
        report = Report(
            format=self.format,
            rows=self._rows,
            kept=self._pairs.count,
            dropped=dict(self._dropped),
            ties=self._policy.ties,
            tied=self._tied,
            left_out=self._left_out,
            figures=self._review.figures(),
            findings=tuple(self.findings),
        )
        return PreparedUpload(self._pairs_path, self._pairs.count, self._images.written, report, self._images.measured)

    def _refuse(self, finding: Finding) -> None:
        """Found before a judgement was made: a row that is none, or the file as a whole."""
        self.findings.add(finding)
        if finding.row is not None:
            self._rows += 1
            self._dropped[finding.code] += 1

    def _judge(self, judgement: Judgement, file: str, lookup: Lookup) -> None:
        """Keep the pair, or drop it for the first thing that is wrong with it."""
        if judgement.tied:
            self._tied += 1
            self._first_tie = self._first_tie or judgement.number
        if judgement.tied and self._policy.ties != "both":
            if self._policy.ties == "error":
                text = f"{file} row {judgement.number}: neither image is preferred; decide, or remove the row."
                self.findings.add(Finding("pair_tied", "error", text, file, judgement.number))
            self._dropped["pair_tied"] += 1
            return
        wrong: list[Finding] = []
        reviewed: ReviewedPair | None = None
        for item in self._reviewed(judgement, file, lookup):
            if isinstance(item, ReviewedPair):
                reviewed = item
            else:
                self.findings.add(item)
                wrong.append(item)
        if reviewed is None:
            self._dropped[next(finding.code for finding in wrong if finding.severity == "error")] += 1
            return
        self.findings.extend(self._review.add(replace(reviewed, tied=judgement.tied, file=judgement.file)))
        for pair in reviewed.both_orders() if judgement.tied else (reviewed.pair,):
            self._pairs.add(pair)
        self._ties_kept += judgement.tied

    def _reviewed(self, judgement: Judgement, file: str, lookup: Lookup) -> Iterator[ReviewedPair | Finding]:
        """The pair, or what is wrong with its row; a warning may stand before a pair."""
        for parsed in parse_row(judgement.fields, file, judgement.number, self._limits, judgement.columns):
            if isinstance(parsed, Finding):
                yield parsed
            else:
                yield from self._pair(judgement, parsed[1], file, lookup)

    def _pair(self, judgement: Judgement, row: Row, file: str, lookup: Lookup) -> Iterator[ReviewedPair | Finding]:
        named = {"chosen": row.chosen} | ({"rejected": row.rejected} if row.rejected is not None else {})
        stored: dict[str, StoredImage] = {}
        for column, path in named.items():
            for item in self._image(judgement, column, path, file, lookup):
                if isinstance(item, Finding):
                    yield item
                else:
                    stored[column] = item
        if stored.keys() != named.keys():
            return
        chosen, rejected = stored["chosen"], stored.get("rejected")
        if rejected is not None and chosen.sha256 == rejected.sha256:
            text = (
                f"{file} row {judgement.number}: chosen and rejected are the same image; correct a path or remove the"
                " row."
            )
            yield Finding("pair_identical", "error", text, file, judgement.number)
            return
        other = rejected.sha256 if rejected is not None else None
        pair = PreparedPair(
            judgement.number, row.prompt, chosen.sha256, other, row.split, row.weight, row.annotator, row.seed
        )
        yield ReviewedPair(pair, chosen, rejected)

    def _image(
        self, judgement: Judgement, column: str, path: str, file: str, lookup: Lookup
    ) -> Iterator[StoredImage | Finding]:
        held = judgement.held.get(path)
        row = judgement.number
        entry = held or lookup.find(path, judgement.search, judgement.folder)
        if held is None and not is_address(path):
            self._found += entry is not None
            self._missing += entry is None
            self._first_missing = self._first_missing or (path if entry is None else "")
        image = self._images.add(entry, once=held is not None) if entry is not None else None
        if isinstance(image, StoredImage) and not image.profile_ignored:
            yield image
            return
        own = printable(judgement.columns.get(column, column))
        where = f"{file} row {row}: {own} image{f' {printable(path)}' if held is None else ''}"
        if image is None and is_address(path):
            text = (
                f"{file} row {row}: column {own!r} has a web address, and intake downloads nothing; put the image into "
                "the archive and name its path."
            )
            yield Finding("image_missing", "error", text, printable(path), row)
        elif image is None:
            text = f"{where} is not in the archive; {lookup.hint(path)}"
            yield Finding("image_missing", "error", text, printable(path), row)
        elif isinstance(image, IntakeError):
            yield Finding(image.code, "error", f"{where} {image.reason}.", printable(path), row)
        else:
            text = f"{where} has a colour profile that cannot be applied and was taken as sRGB; check its colours."
            yield Finding("image_profile", "warning", text, printable(path), row)
            yield image

    def _all_missing(self, file: str) -> Iterator[Finding]:
        """The cause where no path leads to an image: the paths begin elsewhere, or the images were not packed."""
        if self._missing > 2 and not self._found:
            text = (
                f"{file}: none of the {self._missing:,} images that it names is in the archive (the first is "
                f"{printable(self._first_missing)}); paths start at the table's folder or at the top of the archive."
            )
            yield Finding("image_missing", "error", text, file)

    def _without_rejected(self, file: str) -> Iterator[Finding]:
        """One warning for all of them: in a dataset of chosen images it is every pair."""
        if self._pairs.without_rejected:
            pairs = counted(self._pairs.count, "pair")
            text = (
                f"{file}: {self._pairs.without_rejected} of {pairs} without a rejected image; "
                "the base model generates those that a job needs from their prompts, before it trains."
            )
            yield Finding("rejected_missing", "warning", text, file)

    def _about_ties(self, file: str) -> Iterator[Finding]:
        if self._tied and self._policy.ties != "error":
            done = f"{self._ties_kept} are kept in both orders" if self._policy.ties == "both" else "all are left out"
            pairs = counted(self._tied, "pair")
            text = (
                f"{file}: {pairs} of which neither image is preferred (the first is row {self._first_tie}): "
                f"{done}; upload with another policy for ties to change that."
            )
            yield Finding("pair_tied", "warning", text, file)
