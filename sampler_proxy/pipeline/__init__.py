"""Runs the whole flow without I/O: scanner -> buffer -> decide -> limit -> stamp -> outlets.

One lock; every span is counted (ledger): received = sampled out + buffered + kept. Start with `pipeline.pyi`.
"""
