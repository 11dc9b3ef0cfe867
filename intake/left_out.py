"""The files of an archive that are in no pair, counted by the reason: nothing of an upload is left out in silence."""

from __future__ import annotations

from collections import Counter

from intake.archives.entries import Listing, canonical
from intake.archives.lookup import Lookup
from intake.formats.folders.folders import is_image
from intake.formats.judgement import Judgement, JudgementSource
from intake.report import LEFT_OUT, LeftOut


class LeftOutFiles:
    """Feed it every row that was judged, then ask for the counts."""

    def __init__(self, listing: Listing, lookup: Lookup) -> None:
        self._listing, self._lookup = listing, lookup
        self._in_pairs: set[str] = set()
        self._of_dropped: set[str] = set()

    def note(self, judgement: Judgement, *, kept: bool) -> None:
        """``kept``: the row became a pair."""
        for side in ("chosen", "rejected"):
            path = judgement.fields.get(side)
            if isinstance(path, str) and path not in judgement.held:
                entry = self._lookup.find(path.strip(), judgement.search, judgement.folder)
                if entry is not None:
                    (self._in_pairs if kept else self._of_dropped).add(canonical(entry.name))

    def counts(self, source: JudgementSource) -> dict[LeftOut, int]:
        found: Counter[LeftOut] = Counter()
        found["generated"] = len(self._listing.generated.keys() - self._in_pairs) + self._listing.unreadable
        for path, entry in self._listing.files.items():
            if path in self._in_pairs or path in source.used:
                continue
            if path in source.aside:
                found[source.aside[path]] += 1
            elif path in self._of_dropped:
                found["dropped"] += 1
            else:
                found["unnamed" if is_image(path, entry) else "no_image"] += 1
        return {why: found[why] for why in LEFT_OUT if found[why]}
