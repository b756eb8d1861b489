"""An application that works, counts and logs, until it is told to stop: run under `opentelemetry-instrument`.

python counting.py      prints a line when it has begun
"""

import logging
import signal
import threading

from opentelemetry import metrics, trace

stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
logging.basicConfig(level=logging.INFO)
log = logging.getLogger("counting")
counter = metrics.get_meter("counting").create_counter("orders")
tracer = trace.get_tracer("counting")
print("begun", flush=True)
number = 0
while not stop.wait(0.01):
    number += 1
    with tracer.start_as_current_span("order"):
        counter.add(1)
        log.info("order %d was placed", number)
