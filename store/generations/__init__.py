"""Images that users asked for, and the leases of the workers that make them."""
