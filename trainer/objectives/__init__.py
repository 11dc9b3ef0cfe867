"""Preference objectives as pure functions: per-pair denoising losses in, per-pair objective values out."""
