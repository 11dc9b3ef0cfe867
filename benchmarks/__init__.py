"""The programs that print our figures: ratios measured in one run, stored in results/."""
