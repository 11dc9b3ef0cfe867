"""Run the trials: train, sample, judge, and measure costs and mismatch."""
