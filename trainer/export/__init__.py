"""The result of a run: adapter files, their verification, and the model card."""
