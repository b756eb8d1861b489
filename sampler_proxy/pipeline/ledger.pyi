"""What a pipeline counts. Native, and the pipeline's own: it shows all of it as `Pipeline.snapshot`."""

REASONS: tuple[str, ...]
"""What triggered a decision: root, wait, size, early, memory, shutdown."""
