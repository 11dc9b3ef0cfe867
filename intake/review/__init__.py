"""What a whole dataset shows that no single row does: repetitions, contradictions, leakage, agreement, sizes."""

from intake.review.pair import ReviewedPair
from intake.review.review import Review

__all__ = ["Review", "ReviewedPair"]
