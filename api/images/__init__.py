"""Images drawn from base models, fine-tuned models and checkpoints."""
