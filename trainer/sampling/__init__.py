"""Images drawn from the network in training: what the base would make, and how the adapter comes along."""
