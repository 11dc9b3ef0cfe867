"""The verdict: whether the adapter beats its base, so that a run that trained backwards fails."""

from __future__ import annotations

from demo.win_rate import WinRate

EVEN = 0.5  # of two alike


def shortfall(wins: WinRate, *, accuracy: float, base_accuracy: float) -> str | None:
    """One sentence that says why the adapter is not better than its base; None where it is.

    ``wins``: of the adapter's samples over the base's. ``accuracy``, ``base_accuracy``: implicit, on held-out pairs.
    """
    reasons = []
    if not wins.low >= EVEN:
        reasons.append(
            f"the win rate of its samples over the base's may be below {EVEN} "
            f"({wins.rate:.2f}, 95% interval {wins.low:.2f}-{wins.high:.2f})"
        )
    if not accuracy > base_accuracy:
        reasons.append(
            f"its implicit accuracy on held-out pairs ({accuracy:.2f}) is not above the base's ({base_accuracy:.2f})"
        )
    return f"The adapter is not better than its base: {', and '.join(reasons)}." if reasons else None
