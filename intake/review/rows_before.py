"""Which earlier row judged the same images for the same prompt, in the same way or the other."""

from __future__ import annotations

from intake.pairs import PreparedPair
from intake.review.pair import Digest, digest


class RowsBefore:
    """Remembers the first row of each judgement: of each annotator, of nobody named, and of anyone named."""

    def __init__(self) -> None:
        self._first: dict[Digest, int] = {}

    def add(self, pair: PreparedPair, prompt: str) -> tuple[int | None, int | None]:
        """The earlier row that prefers the same image, and the one that prefers the other.

        Rows of two named annotators are two judgements. Rows that name nobody may be anyone's.
        """
        rejected = pair.rejected or ""
        same, opposite = (prompt, pair.chosen, rejected), (prompt, rejected, pair.chosen)
        found = self._row(same, pair.annotator), self._row(opposite, pair.annotator) if pair.rejected else None
        self._first.setdefault(digest(*same, pair.annotator or ""), pair.row)
        if pair.annotator is not None:
            self._first.setdefault(digest(*same), pair.row)
        return found

    def _row(self, judged: tuple[str, str, str], annotator: str | None) -> int | None:
        own = self._first.get(digest(*judged, annotator or ""))
        if own is not None:
            return own
        return self._first.get(digest(*judged, "") if annotator is not None else digest(*judged))
