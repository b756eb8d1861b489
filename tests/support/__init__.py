"""What the tests stand on: an independent reference, generators, recorded traces. Nothing here imports native code."""
