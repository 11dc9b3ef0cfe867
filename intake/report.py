"""The report of an upload or dataset: counts, figures and findings, as JSON and in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, Self

from intake.findings import Code, Finding, counted

# Why a file of an archive is in no pair, and what the report calls such files.
LeftOut = Literal["generated", "mask", "regularisation", "unpaired", "dropped", "unnamed", "no_image"]
LEFT_OUT: Mapping[LeftOut, str] = {
    "dropped": "images of dropped rows",
    "unnamed": "images that no row names",
    "unpaired": "images called neither chosen nor rejected",
    "mask": "masks or conditioning images",
    "regularisation": "regularisation images",
    "no_image": "files that are no images and were not read",
    "generated": "hidden or generated files",
}

SHOWN_SIZES = 20
SHOWN_BUCKETS = 4  # in words
_OF_A_FINDING = tuple(field.name for field in fields(Finding))


@dataclass(frozen=True)
class Figures:
    """``compared_again`` are pairs of images that several annotators judged; ``agreement`` is Krippendorff's alpha.

    ``buckets`` are the pairs by the size that each family's published bases would train them at.
    """

    pairs: int
    without_rejected: int
    prompts: int
    images: int
    splits: Mapping[str, int]
    sizes: Mapping[str, int]
    other_sizes: int
    repeated: int
    contradicted: int
    near_identical: int
    leaked_prompts: int
    truncated_prompts: Mapping[str, int]
    annotators: int
    compared_again: int
    agreement: float | None
    buckets: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """``rows`` were read, ``kept`` became pairs; ``dropped`` counts the others by the first finding of each row.

    ``tied`` rows preferred neither image, and ``ties`` is what was done with them. ``format`` names what was
    recognised, e.g. ``archive/metadata.jsonl`` or ``parquet/pick-a-pic``; ``archive`` alone when nothing was,
    ``unknown`` when the file is neither. ``left_out`` counts the archive's files that are in no pair, by the reason.
    """

    format: str
    rows: int
    kept: int
    dropped: Mapping[Code, int]
    figures: Figures
    findings: tuple[Finding, ...] = field(default=())
    ties: str = "drop"
    tied: int = 0
    left_out: Mapping[LeftOut, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        findings = [asdict(finding) | {"advice": finding.advice} for finding in self.findings]
        return asdict(replace(self, findings=())) | {"findings": findings}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Of ``as_json``'s, or of an older version's, which gave no advice."""
        figures = Figures(**document["figures"])
        given = ({name: finding.get(name) for name in _OF_A_FINDING} for finding in document["findings"])
        findings = tuple(Finding(**finding) for finding in given)
        return cls(**{**document, "figures": figures, "findings": findings})

    def in_words(self) -> str:
        """Lines for a person: the outcome first, then what was found."""
        found = self.figures
        lines = [f"{self.format}: {counted(self.rows, 'row')} read, {counted(self.kept, 'pair')} kept."]
        lines += [f"  {count} dropped: {code}" for code, count in self.dropped.items()]
        if self.tied:
            done = {"drop": "left out", "both": "kept in both orders", "error": "refused"}[self.ties]
            lines.append(f"{counted(self.tied, 'tie')}, {done}.")
        if self.left_out:
            left_out = ", ".join(f"{LEFT_OUT[why]} ({count})" for why, count in self.left_out.items())
            lines.append(f"In no pair: {left_out}.")
        prompts, images = counted(found.prompts, "different prompt"), counted(found.images, "different image")
        lines.append(f"{prompts}, {images}.")
        if found.without_rejected:
            pairs = counted(found.without_rejected, "pair")
            lines.append(f"{pairs} without a rejected image; if a job needs it, the base model generates it.")
        lines.append(f"Splits: {', '.join(f'{count} {name}' for name, count in found.splits.items())}.")
        sizes = ", ".join(f"{count} of {size}" for size, count in found.sizes.items())
        lines.append(
            f"Images by size: {sizes}{f' and {found.other_sizes} of other sizes' if found.other_sizes else ''}."
        )
        for family, buckets in found.buckets.items():
            shown = ", ".join(
                f"{counted(count, 'pair')} at {size}" for size, count in list(buckets.items())[:SHOWN_BUCKETS]
            )
            more = len(buckets) - SHOWN_BUCKETS
            rest = f" and at {counted(more, 'other size')}" if more > 0 else ""
            lines.append(f"Training on {family}: {shown}{rest}.")
        lines += [
            f"{counted(count, noun)} {text}."
            for count, noun, text in (
                (found.repeated, "pair", "repeating an earlier one"),
                (found.contradicted, "pair", "contradicted by another"),
                (found.near_identical, "pair", "with nearly identical images"),
                (found.leaked_prompts, "prompt", "both in training and in validation"),
            )
            if count
        ]
        lines += [
            f"{counted(count, 'prompt')} too long for {family}'s text encoders."
            for family, count in found.truncated_prompts.items()
        ]
        if found.agreement is not None:
            annotators, pairs = counted(found.annotators, "annotator"), counted(found.compared_again, "pair")
            lines.append(
                f"{annotators}; agreement on {pairs} that several judged: {found.agreement:.2f} "
                f"(Krippendorff's alpha; 1 is full agreement, 0 chance)."
            )
        lines += [f"{finding.severity}: {finding.code}: {finding.message}" for finding in self.findings]
        if self.findings:
            lines.append("What to do:")
        lines += [f"  {code}: {advice}" for code, advice in {one.code: one.advice for one in self.findings}.items()]
        return "\n".join(lines) + "\n"
