"""What prints our figures: ratios measured in one run, kept in results/."""
