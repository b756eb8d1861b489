"""Counts for a pipeline. Native, and the pipeline's own, which shows all counters as `Pipeline.instant`."""

REASONS: tuple[str, ...]
"""What triggered a decision, in the order of the ledger's numbers: root, wait, size, early, memory, shutdown, late."""

REFUSALS: tuple[str, ...]
"""Why a request was refused, in the order of the ledger's numbers. Others are numbered behind these as they come."""
