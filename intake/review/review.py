"""Reading pairs one by one, remembering of each only digests: 50,000 pairs take some tens of megabytes."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator

from intake.findings import Code, Finding
from intake.fingerprint import NEAR, distance
from intake.image_folder import StoredImage
from intake.report import SHOWN_SIZES, Figures
from intake.review.agreement import krippendorff_alpha
from intake.review.pair import ReviewedPair, same_prompt
from intake.review.shapes import Shapes
from intake.review.tokens import truncated_by

# Below this a picture has fewer latents than any base makes of its own size (SD 1.x: 64 at 512 pixels).
SMALL = 64
LOOSE = 0.02  # how much the images' shapes may differ (width by height) before one of them is cropped noticeably

Key = bytes


class Review:
    """Feed it every pair that was kept, in the order of the rows, then ask for the figures."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._rows: dict[Key, int] = {}  # the first row of each pair, by prompt and both images
        self._prompts: dict[Key, set[str]] = defaultdict(set)  # the splits that a prompt is in
        self._images: set[bytes] = set()
        self._sizes: Counter[str] = Counter()
        self._shapes = Shapes()
        self._splits: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._truncated: Counter[str] = Counter()
        self._judged: dict[Key, Counter[str]] = defaultdict(Counter)
        self._annotators: set[str] = set()
        self._first_small: tuple[int, str] | None = None

    def add(self, reviewed: ReviewedPair) -> Iterator[Finding]:
        """What this pair shows, with the ones before it."""
        pair = reviewed.pair
        self._counts["pairs"] += 1
        self._counts["without_rejected"] += reviewed.rejected is None
        self._splits[pair.split or "unassigned"] += 1
        for image in reviewed.images:
            self._images.add(bytes.fromhex(image.sha256))
            self._sizes[f"{image.width}x{image.height}"] += 1
        self._shapes.add([(image.width, image.height) for image in reviewed.images])
        yield from self._prompt(reviewed)
        self._note_small(reviewed)
        if reviewed.rejected is not None:
            yield from self._both(reviewed, reviewed.rejected)

    def conclude(self) -> Iterator[Finding]:
        """What is told once for the whole data set, after the last pair."""
        if self._first_small is not None:
            row, size = self._first_small
            share = f"{self._counts['small']} of {self._counts['pairs']} pairs"
            text = (
                f"{self._file}: {share} have an image whose shorter side is below {SMALL} pixels (the first is row "
                f"{row}, {size}); use the originals: enlarged, they blur."
            )
            yield Finding("image_small", "warning", text, self._file, row)

    def figures(self) -> Figures:
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
            annotators=len(self._annotators),
            compared_again=sum(judged.total() > 1 for judged in self._judged.values()),
            agreement=krippendorff_alpha(self._judged.values()),
        )

    def _prompt(self, reviewed: ReviewedPair) -> Iterator[Finding]:
        prompt = same_prompt(reviewed.pair.prompt)
        splits = self._prompts[_key(prompt)]
        first = not splits
        before = len(splits & {"train", "validation"})
        splits.add(reviewed.pair.split or "unassigned")
        if before == 1 and {"train", "validation"} <= splits:
            self._counts["leaked"] += 1
            yield self._warning(
                "prompt_leaked",
                reviewed,
                "the prompt is in training and in validation, which makes validation too kind; keep it in one",
            )
        too_long = truncated_by(reviewed.pair.prompt) if first else []
        self._truncated.update(too_long)
        if too_long:
            yield self._warning(
                "prompt_truncated",
                reviewed,
                f"the text encoders of {', '.join(too_long)} drop the prompt's end; say first what matters",
            )

    def _note_small(self, reviewed: ReviewedPair) -> None:
        small = [image for image in reviewed.images if min(image.width, image.height) < SMALL]
        if small:
            self._counts["small"] += 1
            self._first_small = self._first_small or (reviewed.pair.row, f"{small[0].width}x{small[0].height}")

    def _both(self, reviewed: ReviewedPair, rejected: StoredImage) -> Iterator[Finding]:
        chosen = reviewed.chosen
        if abs(chosen.width * rejected.height / (chosen.height * rejected.width) - 1) > LOOSE:
            text = (
                f"chosen is {chosen.width}x{chosen.height} and rejected {rejected.width}x{rejected.height}: both are "
                "cropped to one shape; check that nothing that matters is at an edge"
            )
            yield self._warning("image_sizes_differ", reviewed, text)
        if distance(chosen.fingerprint, rejected.fingerprint) <= NEAR:
            self._counts["near_identical"] += 1
            text = "chosen and rejected hardly differ, so that noise decides; remove the row unless the detail is meant"
            yield self._warning("pair_near_identical", reviewed, text)
        if not reviewed.tied:  # in both orders it would contradict itself
            yield from self._before(reviewed, rejected)

    def _before(self, reviewed: ReviewedPair, rejected: StoredImage) -> Iterator[Finding]:
        """Judgements of the same two images for the same prompt: by others they count, by nobody else they repeat."""
        pair, prompt = reviewed.pair, same_prompt(reviewed.pair.prompt)
        unordered = _key(prompt, *sorted((reviewed.chosen.sha256, rejected.sha256)))
        if pair.annotator is not None:
            self._annotators.add(pair.annotator)
            self._judged[unordered][reviewed.chosen.sha256[:16]] += 1
        by = pair.annotator or ""
        mine = self._rows.setdefault(_key(prompt, reviewed.chosen.sha256, rejected.sha256, by), pair.row)
        if mine != pair.row:
            self._counts["repeated"] += 1
            yield self._warning("pair_repeated", reviewed, f"the pair is the one of row {mine} again; remove one")
        opposite = self._rows.get(_key(prompt, rejected.sha256, reviewed.chosen.sha256, by))
        if opposite is not None:
            self._counts["contradicted"] += 1
            which = "it" if opposite == pair.row else f"row {opposite}"
            text = f"{which} also prefers the other image of the same two; keep one judgement, or neither"
            yield self._warning("pair_contradicted", reviewed, text)

    def _warning(self, code: Code, reviewed: ReviewedPair, text: str) -> Finding:
        row = reviewed.pair.row
        return Finding(code, "warning", f"{self._file} row {row}: {text}.", self._file, row)


def _key(*parts: str) -> Key:
    """16 bytes: with 100,000 of them two are the same by chance once in 10^28."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).digest()
