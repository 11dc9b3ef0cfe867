"""Reading uploads: speed against bare decoding, and the memory of large ones."""
