"""Files: uploads in one piece and in parts, and the leases of the workers that read them."""
