"""Runs the command `sampler-proxy` for `python -m sampler_proxy`."""

from sampler_proxy.cli import main

main(prog_name="sampler-proxy")
