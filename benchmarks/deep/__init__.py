"""What the outbox costs where much has piled up: see `benchmarks.deep.__main__`."""
