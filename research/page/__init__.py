"""Write docs/benchmark.md: its sentences, tables, plots and sample sheets."""
