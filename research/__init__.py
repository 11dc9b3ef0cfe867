"""The preference benchmark: the paper's five domains in miniature, every method on the same pairs, one report."""
