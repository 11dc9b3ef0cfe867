"""The result: adapter files, proof that they load, model card."""
