"""`python -m sampler_proxy` is the command `sampler-proxy`."""

from sampler_proxy.cli import main

main(prog_name="sampler-proxy")
