"""Image generations, and the leases of the workers that make them."""
