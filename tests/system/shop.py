"""A shop of three services that know nothing of OpenTelemetry: run under `opentelemetry-instrument`, they are traced.

    python shop.py NEXT_URL     serves on a free port, which it prints; NEXT_URL is the service to ask, "" for none

A path is passed on from service to service; below /broken the last one fails. The first answers with the id of its
trace, for the test's sake.
"""

import sys

import requests
from flask import Flask
from opentelemetry import trace
from werkzeug.serving import make_server

NEXT = sys.argv[1]
app = Flask("shop")


@app.get("/<path:path>")
def serve(path: str) -> tuple[dict[str, str], int]:
    if NEXT:
        status = requests.get(f"{NEXT}/{path}", timeout=20).status_code
    else:
        status = 500 if path.startswith("broken") else 200
    return {"trace": f"{trace.get_current_span().get_span_context().trace_id:032x}"}, status


server = make_server("127.0.0.1", 0, app, threaded=True)
print(server.port, flush=True)
server.serve_forever()
