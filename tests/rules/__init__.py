"""Rules: what TraceQL selects, and how rates adapt."""
