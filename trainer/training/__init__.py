"""The training loop: setup, steps, checkpoints, memory and progress."""
