"""What the trials show: intervals, comparisons, growth with mismatch, claims."""
