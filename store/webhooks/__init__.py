"""Webhooks: endpoints, signing, the outbox and the log of deliveries."""
