"""What a checkout in the web shop of the corpus looks like: its 20 operations, span by span.

A checkout crosses five services (gateway, orders, users, inventory, payments): HTTP and gRPC servers and clients, SQL
and Redis calls, internal steps, a message sent. Each operation has nine attributes; corpus.py adds the user and the
peer's pod.
"""

from typing import NamedTuple

from opentelemetry.proto.trace.v1.trace_pb2 import Span

_SERVER, _CLIENT = Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT
_INTERNAL, _PRODUCER = Span.SPAN_KIND_INTERNAL, Span.SPAN_KIND_PRODUCER


class Operation(NamedTuple):
    """One span. Offset and duration are thousandths of the trace's; `#` in a value stands for eight hex digits."""

    service: str
    kind: Span.SpanKind.ValueType
    name: str
    parent: int
    offset: int
    duration: int
    attributes: dict[str, str | int]


def _http_server(route: str, method: str, status: int) -> dict[str, str | int]:
    return {
        "http.request.method": method,
        "http.route": route + "/{id}",
        "url.path": route + "/#",
        "url.scheme": "https",
        "http.response.status_code": status,
        "network.protocol.version": "1.1",
        "user_agent.original": "Mozilla/5.0 (X11; Linux)",
        "client.address": "10.12.7.23",
        "server.port": 8443,
    }


def _http_client(host: str, path: str, status: int) -> dict[str, str | int]:
    return {
        "http.request.method": "POST",
        "url.full": f"http://{host}.shop.svc:8080{path}/#",
        "url.template": path + "/{id}",
        "server.address": host + ".shop.svc",
        "server.port": 8080,
        "http.response.status_code": status,
        "network.protocol.version": "1.1",
        "http.request.body.size": 1834,
        "http.response.body.size": 734,
    }


def _rpc(host: str, method: str) -> dict[str, str | int]:
    return {
        "rpc.system": "grpc",
        "rpc.service": "shop." + host.capitalize(),
        "rpc.method": method,
        "rpc.grpc.status_code": 0,
        "server.address": host + ".shop.svc.cluster.local",
        "server.port": 50051,
        "network.transport": "tcp",
        "rpc.request.id": "req-#",
        "thread.name": "grpc-executor-3",
    }


def _sql(table: str, query: str) -> dict[str, str | int]:
    return {
        "db.system.name": "postgresql",
        "db.namespace": "shop",
        "db.operation.name": query.split()[0],
        "db.collection.name": table,
        "db.query.text": query,
        "db.query.parameter.0": "#",
        "server.port": 5432,
        "db.response.returned_rows": 1,
        "network.transport": "tcp",
    }


def _redis(command: str, key: str) -> dict[str, str | int]:
    return {
        "db.system.name": "redis",
        "db.namespace": "0",
        "db.operation.name": command,
        "db.query.text": f"{command} {key}:#",
        "server.port": 6379,
        "network.transport": "tcp",
        "network.type": "ipv4",
        "cache.hit": "true",
        "cache.ttl_s": 300,
    }


def _step(function: str, file: str) -> dict[str, str | int]:
    return {
        "code.function.name": function,
        "code.file.path": f"/srv/app/{file}",
        "code.line.number": 214,
        "thread.id": 140213,
        "thread.name": "worker-7",
        "shop.cart.id": "cart-#",
        "shop.currency": "EUR",
        "shop.region": "eu-central-1",
        "feature_flag.key": "new-pricing",
    }


def _message(topic: str) -> dict[str, str | int]:
    return {
        "messaging.system": "kafka",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": topic,
        "messaging.message.id": "#",
        "messaging.client.id": "payments-1",
        "messaging.message.body.size": 612,
        "server.address": "kafka.shop.svc",
        "server.port": 9092,
    }


# Parents come before their children, and each prefix is a tree: a trace of N spans is the first N.
OPERATIONS: tuple[Operation, ...] = (
    Operation("gateway", _SERVER, "POST /api/checkout/{id}", 0, 0, 1000, _http_server("/api/checkout", "POST", 200)),
    Operation("gateway", _CLIENT, "POST", 0, 20, 950, _http_client("orders", "/orders", 201)),
    Operation("orders", _SERVER, "POST /orders/{id}", 1, 30, 930, _http_server("/orders", "POST", 201)),
    Operation("orders", _CLIENT, "SELECT shop.orders", 2, 40, 60, _sql("orders", "SELECT * FROM orders WHERE id = $1")),
    Operation("orders", _CLIENT, "shop.Inventory/Reserve", 2, 110, 250, _rpc("inventory", "Reserve")),
    Operation("inventory", _SERVER, "shop.Inventory/Reserve", 4, 120, 230, _rpc("inventory", "Reserve")),
    Operation("inventory", _CLIENT, "GET", 5, 130, 20, _redis("GET", "stock:article")),
    Operation("orders", _CLIENT, "shop.Payments/Charge", 2, 370, 560, _rpc("payments", "Charge")),
    Operation("payments", _SERVER, "shop.Payments/Charge", 7, 380, 540, _rpc("payments", "Charge")),
    Operation("payments", _CLIENT, "POST", 8, 400, 440, _http_client("bank", "/v2/charges", 200)),
    Operation("gateway", _CLIENT, "GET", 0, 2, 17, _http_client("users", "/session", 200)),
    Operation("users", _SERVER, "GET /session/{id}", 10, 4, 13, _http_server("/session", "GET", 200)),
    Operation("users", _CLIENT, "GET", 11, 5, 3, _redis("GET", "session:user")),
    Operation("users", _CLIENT, "SELECT shop.users", 11, 9, 7, _sql("users", "SELECT tier FROM users WHERE id = $1")),
    Operation("orders", _INTERNAL, "price order", 2, 100, 9, _step("shop.pricing.price_order", "pricing.py")),
    Operation("inventory", _INTERNAL, "choose warehouse", 5, 155, 80, _step("shop.stock.choose_warehouse", "stock.py")),
    Operation("inventory", _CLIENT, "UPDATE shop.stock", 5, 240, 100, _sql("stock", "UPDATE stock SET free = $1")),
    Operation("payments", _INTERNAL, "check fraud", 8, 382, 15, _step("shop.fraud.check", "fraud.py")),
    Operation(
        "payments", _CLIENT, "INSERT shop.charges", 8, 850, 40, _sql("charges", "INSERT INTO charges VALUES ($1, $2)")
    ),
    Operation("payments", _PRODUCER, "send charges", 8, 895, 20, _message("shop.charges.completed")),
)
