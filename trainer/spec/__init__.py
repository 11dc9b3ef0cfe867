"""What a run is and what it reports, as pydantic models. Imports no torch: API and worker share these."""
