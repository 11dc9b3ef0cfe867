"""Whatever people have, as judgements: one module per format, told by the columns or folders that its tool writes."""
