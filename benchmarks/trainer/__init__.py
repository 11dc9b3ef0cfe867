"""The trainer against the bare network, against a plain loop, and against itself with each option on and off."""
