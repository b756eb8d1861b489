"""Clients of OpenTelemetry in other languages, and others that speak OTLP, through a real proxy to a real back end.

`python -m tests.clients.build FOLDER` builds those whose tools are there, and SAMPLER_PROXY_TEST_CLIENTS=FOLDER has the
tests use them; a test whose client is not there is skipped by name. Each client sends the known trace (`known.py`) for
each line of its standard input, to where the variables OTEL_* say, and answers with a line, "sent" if it was taken.
"""
