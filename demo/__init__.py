"""The bundled example: OpenMoji preference pairs, the tiny SDXL-family base model, and the end-to-end run."""
