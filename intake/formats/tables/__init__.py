"""Tables in any file: text, parquet and Arrow, one or several; whose they are, `intake.formats.layouts` tells."""
