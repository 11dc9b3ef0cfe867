"""Fine-tuning jobs: queries, states, leases, the queue, events."""
