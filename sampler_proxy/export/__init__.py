"""Where kept traces go: one file per kind of destination over a queue, a retry policy and a shell that they share."""
