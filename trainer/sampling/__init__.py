"""Sampling from the network in training: missing images from the base, and samples of the adapter."""
