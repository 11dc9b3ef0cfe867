"""Archives without a table: pairs and pictures by the names of files and folders, with captions beside them."""
