"""Reading pairs one by one, remembering of each only digests: 50,000 pairs take some tens of megabytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from intake.findings import Code, Finding
from intake.images.fingerprint import NEAR, distance
from intake.images.image_folder import StoredImage
from intake.report import SHOWN_SIZES, Figures
from intake.review.agreement import Judges, krippendorff_alpha
from intake.review.pair import Digest, ReviewedPair, digest
from intake.review.rows_before import RowsBefore
from intake.review.shapes import Shapes, unlike
from intake.review.tokens import truncated_by
from trainer.spec.same import same_prompt

# Below this a picture has fewer latents than any base makes of its own size (SD 1.x: 64 at 512 pixels).
SMALL = 64
TRAINED, VALIDATED, LEAKED = (
    1,
    2,
    3,
)  # uses of a prompt or an image; rows without a split are trained on where others are marked


class Review:
    """Feed it every pair that was kept, in the order of the rows, then ask for the figures."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._before = RowsBefore()
        self._prompts: dict[Digest, int] = {}  # the uses of each
        self._images: dict[bytes, int] = {}  # the uses of each
        self._sizes: Counter[str] = Counter()
        self._shapes = Shapes()
        self._splits: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._truncated: Counter[str] = Counter()
        self._judges = Judges()
        self._first_small: tuple[int, str] | None = None

    def add(self, reviewed: ReviewedPair) -> Iterator[Finding]:
        """What this pair shows, with the ones before it."""
        pair = reviewed.pair
        self._counts["pairs"] += 1
        self._counts["without_rejected"] += reviewed.rejected is None
        self._splits[pair.split or "unassigned"] += 1
        for image in reviewed.images:
            self._sizes[f"{image.width}x{image.height}"] += 1
        self._shapes.add([(image.width, image.height) for image in reviewed.images])
        yield from self._prompt(reviewed)
        yield from self._leaked_images(reviewed)
        self._note_small(reviewed)
        if reviewed.rejected is not None:
            yield from self._both(reviewed, reviewed.rejected)
        if not reviewed.tied:  # in both orders it would contradict itself
            yield from self._compared_with_before(reviewed)

    def conclude(self) -> Iterator[Finding]:
        """Findings about the whole dataset, after the last pair."""
        if self._first_small is not None:
            row, size = self._first_small
            share = f"{self._counts['small']} of {self._counts['pairs']} pairs"
            text = (
                f"{self._file}: {share} have an image whose shorter side is below {SMALL} pixels (the first is row "
                f"{row}, {size}); use the originals: enlarged, they blur."
            )
            yield Finding("image_small", "warning", text, self._file, row)

    def figures(self) -> Figures:
        units = self._judges.units()
        largest = dict(self._sizes.most_common(SHOWN_SIZES))
        return Figures(
            pairs=self._counts["pairs"],
            without_rejected=self._counts["without_rejected"],
            prompts=len(self._prompts),
            images=len(self._images),
            splits=dict(self._splits),
            sizes=largest,
            buckets=self._shapes.by_family(),
            other_sizes=self._sizes.total() - sum(largest.values()),
            repeated=self._counts["repeated"],
            contradicted=self._counts["contradicted"],
            near_identical=self._counts["near_identical"],
            leaked_prompts=self._counts["leaked"],
            truncated_prompts=dict(self._truncated),
            annotators=self._judges.count,
            compared_again=len(units),
            agreement=krippendorff_alpha(units),
        )

    def _prompt(self, reviewed: ReviewedPair) -> Iterator[Finding]:
        key = digest(same_prompt(reviewed.pair.prompt))
        before = self._prompts.get(key, 0)
        now = self._prompts[key] = before | _use(reviewed)
        if now == LEAKED and before != LEAKED:
            self._counts["leaked"] += 1
            yield self._warning(
                "prompt_leaked",
                reviewed,
                "the prompt is in training and in validation, which makes validation too kind; keep it in one",
            )
        too_long = truncated_by(reviewed.pair.prompt) if not before else []
        self._truncated.update(too_long)
        if too_long:
            yield self._warning(
                "prompt_truncated",
                reviewed,
                f"the text encoders of {', '.join(too_long)} drop the prompt's end; say first what matters",
            )

    def _leaked_images(self, reviewed: ReviewedPair) -> Iterator[Finding]:
        """Unless the prompt leaks: then its images do for the same reason."""
        leaked = False
        for image in reviewed.images:
            key = bytes.fromhex(image.sha256)
            before = self._images.get(key, 0)
            now = self._images[key] = before | _use(reviewed)
            leaked |= now == LEAKED and before != LEAKED
        if leaked and self._prompts[digest(same_prompt(reviewed.pair.prompt))] != LEAKED:
            text = "an image of the pair is in training and in validation, which makes validation too kind"
            yield self._warning("image_leaked", reviewed, f"{text}; keep it in one")

    def _note_small(self, reviewed: ReviewedPair) -> None:
        small = [image for image in reviewed.images if min(image.width, image.height) < SMALL]
        if small:
            self._counts["small"] += 1
            self._first_small = self._first_small or (reviewed.pair.row, f"{small[0].width}x{small[0].height}")

    def _both(self, reviewed: ReviewedPair, rejected: StoredImage) -> Iterator[Finding]:
        chosen = reviewed.chosen
        consequences = unlike(chosen, rejected)
        if consequences:
            sizes = f"chosen is {chosen.width}x{chosen.height} and rejected {rejected.width}x{rejected.height}"
            yield self._warning("image_sizes_differ", reviewed, f"{sizes}: {'; '.join(consequences)}")
        if distance(chosen.fingerprint, rejected.fingerprint) <= NEAR:
            self._counts["near_identical"] += 1
            text = "chosen and rejected hardly differ, so that noise decides; remove the row unless the detail is meant"
            yield self._warning("pair_near_identical", reviewed, text)

    def _compared_with_before(self, reviewed: ReviewedPair) -> Iterator[Finding]:
        """Judgements of the same images for the same prompt: by others they count, by nobody else they repeat."""
        pair, prompt = reviewed.pair, same_prompt(reviewed.pair.prompt)
        same, opposite = self._before.add(pair, prompt)
        self._judges.add(pair, prompt)
        if same is not None:
            self._counts["repeated"] += 1
            which = "this row" if same == pair.row else f"row {same}"
            yield self._warning("pair_repeated", reviewed, f"the pair is the one of {which} again; remove one")
        if opposite is not None:
            self._counts["contradicted"] += 1
            which = "it" if opposite == pair.row else f"row {opposite}"
            text = f"{which} also prefers the other image of the same two; keep one judgement, or neither"
            yield self._warning("pair_contradicted", reviewed, text)

    def _warning(self, code: Code, reviewed: ReviewedPair, text: str) -> Finding:
        row, file = reviewed.pair.row, reviewed.file or self._file
        return Finding(code, "warning", f"{file} row {row}: {text}.", file, row)


def _use(reviewed: ReviewedPair) -> int:
    return VALIDATED if reviewed.pair.split == "validation" else TRAINED
