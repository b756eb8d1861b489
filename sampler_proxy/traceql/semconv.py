"""Finds attribute names that look like one of OpenTelemetry's semantic conventions and are not, or stand elsewhere.

Only the names that rules use most are listed: `advise` says nothing about names that are unlike all of these, and an
attribute may be named in any other way. Hence warnings, no errors. Names are those of version 1.41 of the conventions;
`RENAMED` has older names, with what to write now.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from sampler_proxy.traceql.ast import METADATA, Scope


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


SPAN = _names("""
    aws.dynamodb.table_names aws.request_id aws.s3.bucket aws.s3.key
    client.address client.port
    code.column.number code.file.path code.function.name code.line.number code.stacktrace
    db.collection.name db.namespace db.operation.batch.size db.operation.name db.query.summary db.query.text
    db.response.returned_rows db.response.status_code db.stored_procedure.name db.system.name
    destination.address destination.port dns.question.name
    enduser.id error.type
    faas.coldstart faas.cron faas.invocation_id faas.invoked_name faas.invoked_provider faas.invoked_region faas.time
    faas.trigger
    gen_ai.agent.name gen_ai.conversation.id gen_ai.operation.name gen_ai.provider.name gen_ai.request.max_tokens
    gen_ai.request.model gen_ai.response.finish_reasons gen_ai.response.id gen_ai.response.model gen_ai.tool.name
    gen_ai.usage.input_tokens gen_ai.usage.output_tokens
    graphql.document graphql.operation.name graphql.operation.type
    http.connection.state http.request.body.size http.request.method http.request.method_original
    http.request.resend_count http.request.size http.response.body.size http.response.size http.response.status_code
    http.route
    jsonrpc.request.id
    messaging.batch.message_count messaging.client.id messaging.consumer.group.name messaging.destination.anonymous
    messaging.destination.name messaging.destination.partition.id messaging.destination.subscription.name
    messaging.destination.template messaging.destination.temporary messaging.kafka.message.key
    messaging.kafka.message.tombstone messaging.kafka.offset messaging.message.body.size
    messaging.message.conversation_id messaging.message.envelope.size messaging.message.id messaging.operation.name
    messaging.operation.type messaging.rabbitmq.destination.routing_key messaging.system
    network.connection.type network.local.address network.local.port network.peer.address network.peer.port
    network.protocol.name network.protocol.version network.transport network.type
    opentracing.ref_type
    rpc.method rpc.response.status_code rpc.system.name
    server.address server.port service.peer.name source.address source.port
    thread.id thread.name tls.protocol.version
    url.domain url.fragment url.full url.path url.query url.scheme url.template
    user.email user.full_name user.hash user.id user.name user.roles
    """)
RESOURCE = _names("""
    aws.ecs.cluster.arn aws.ecs.container.arn aws.ecs.launchtype aws.ecs.task.arn aws.ecs.task.family
    aws.eks.cluster.arn aws.log.group.names aws.log.stream.names browser.brands browser.language browser.mobile
    browser.platform
    cloud.account.id cloud.availability_zone cloud.platform cloud.provider cloud.region
    container.command container.id container.image.id container.image.name container.image.tags container.name
    container.runtime.name
    deployment.environment.name deployment.id deployment.name device.id device.manufacturer device.model.identifier
    device.model.name
    faas.instance faas.max_memory faas.name faas.version
    gcp.cloud_run.job.execution gcp.cloud_run.job.task_index gcp.gce.instance.hostname gcp.gce.instance.name
    heroku.app.id heroku.release.commit
    host.arch host.id host.image.id host.image.name host.image.version host.ip host.mac host.name host.type
    k8s.cluster.name k8s.cluster.uid k8s.container.name k8s.container.restart_count k8s.cronjob.name k8s.daemonset.name
    k8s.deployment.name k8s.deployment.uid k8s.job.name k8s.namespace.name k8s.node.name k8s.node.uid k8s.pod.ip
    k8s.pod.name k8s.pod.start_time k8s.pod.uid k8s.replicaset.name k8s.replicaset.uid k8s.statefulset.name
    os.build_id os.description os.name os.type os.version
    process.command process.command_args process.command_line process.executable.name process.executable.path
    process.owner process.parent_pid process.pid process.runtime.description process.runtime.name
    process.runtime.version process.vpid
    service.instance.id service.name service.namespace service.version
    telemetry.distro.name telemetry.distro.version telemetry.sdk.language telemetry.sdk.name telemetry.sdk.version
    webengine.name webengine.version
    """)
EVENT = _names("exception.message exception.stacktrace exception.type")
# On spans, and on resources or events as well.
ELSEWHERE = _names("""
    cloud.resource_id feature_flag.context.id feature_flag.key feature_flag.provider.name feature_flag.result.reason
    feature_flag.result.value feature_flag.result.variant feature_flag.set.id feature_flag.version session.id
    session.previous_id user_agent.name user_agent.original user_agent.version
    """)
_KNOWN = SPAN | RESOURCE | EVENT | ELSEWHERE

RENAMED = {
    "az.namespace": "azure.resource_provider.namespace",
    "code.column": "code.column.number",
    "code.filepath": "code.file.path",
    "code.function": "code.function.name",
    "code.lineno": "code.line.number",
    "code.namespace": "code.function.name, which is the full name",
    "container.runtime": "container.runtime.name",
    "db.cassandra.table": "db.collection.name",
    "db.connection_string": "server.address and server.port",
    "db.cosmosdb.container": "db.collection.name",
    "db.elasticsearch.cluster.name": "db.namespace",
    "db.mongodb.collection": "db.collection.name",
    "db.name": "db.namespace",
    "db.operation": "db.operation.name",
    "db.redis.database_index": "db.namespace",
    "db.sql.table": "db.collection.name",
    "db.statement": "db.query.text",
    "db.system": "db.system.name",
    "deployment.environment": "deployment.environment.name",
    "enduser.role": "user.roles",
    "faas.execution": "faas.invocation_id",
    "faas.id": "cloud.resource_id",
    "gen_ai.system": "gen_ai.provider.name",
    "gen_ai.usage.completion_tokens": "gen_ai.usage.output_tokens",
    "gen_ai.usage.prompt_tokens": "gen_ai.usage.input_tokens",
    "http.client_ip": "client.address",
    "http.flavor": "network.protocol.version",
    "http.host": "server.address",
    "http.method": "http.request.method",
    "http.request_content_length": "http.request.header.content-length",
    "http.request_content_length_uncompressed": "http.request.body.size",
    "http.resend_count": "http.request.resend_count",
    "http.response_content_length": "http.response.header.content-length",
    "http.response_content_length_uncompressed": "http.response.body.size",
    "http.scheme": "url.scheme",
    "http.server_name": "server.address",
    "http.status_code": "http.response.status_code",
    "http.target": "url.path and url.query",
    "http.url": "url.full",
    "http.user_agent": "user_agent.original",
    "messaging.consumer_id": "messaging.client.id",
    "messaging.conversation_id": "messaging.message.conversation_id",
    "messaging.destination": "messaging.destination.name",
    "messaging.eventhubs.consumer.group": "messaging.consumer.group.name",
    "messaging.kafka.client_id": "messaging.client.id",
    "messaging.kafka.consumer.group": "messaging.consumer.group.name",
    "messaging.kafka.consumer_group": "messaging.consumer.group.name",
    "messaging.kafka.destination.partition": "messaging.destination.partition.id",
    "messaging.kafka.message.offset": "messaging.kafka.offset",
    "messaging.kafka.message_key": "messaging.kafka.message.key",
    "messaging.kafka.partition": "messaging.destination.partition.id",
    "messaging.message_id": "messaging.message.id",
    "messaging.message_payload_size_bytes": "messaging.message.body.size",
    "messaging.operation": "messaging.operation.type",
    "messaging.rabbitmq.routing_key": "messaging.rabbitmq.destination.routing_key",
    "messaging.rocketmq.client_group": "messaging.consumer.group.name",
    "messaging.temp_destination": "messaging.destination.temporary",
    "messaging.url": "server.address and server.port",
    "net.host.ip": "network.local.address",
    "net.host.name": "server.address",
    "net.host.port": "server.port",
    "net.peer.ip": "network.peer.address",
    "net.peer.name": "server.address (on servers: client.address)",
    "net.peer.port": "server.port (on servers: client.port)",
    "net.protocol.name": "network.protocol.name",
    "net.protocol.version": "network.protocol.version",
    "net.sock.family": "network.type",
    "net.sock.host.addr": "network.local.address",
    "net.sock.host.port": "network.local.port",
    "net.sock.peer.addr": "network.peer.address",
    "net.sock.peer.port": "network.peer.port",
    "net.transport": "network.transport",
    "otel.library.name": "instrumentation:name",
    "otel.library.version": "instrumentation:version",
    "peer.service": "service.peer.name",
    "rpc.connect_rpc.error_code": "rpc.response.status_code",
    "rpc.grpc.status_code": "rpc.response.status_code",
    "rpc.jsonrpc.request_id": "jsonrpc.request.id",
    "rpc.service": "rpc.method, which is the full name",
    "rpc.system": "rpc.system.name",
    "telemetry.auto.version": "telemetry.distro.version",
}
# Names with these prefixes are chosen by users; a few more characters behind a prefix are no misspelling of anything.
_FREE = (
    *("http.request.header.", "http.response.header.", "rpc.request.metadata.", "rpc.response.metadata."),
    *("db.query.parameter.", "db.operation.parameter.", "k8s.pod.label.", "k8s.pod.annotation.", "container.label."),
    *("k8s.namespace.label.", "k8s.node.label.", "process.environment_variable.", "cloudevents.", "aws.dynamodb."),
)
_SHORTEST = 8  # characters of a name in which one may be wrong; in twice as many, two
_PREFIXES = {
    Scope.SPAN: ("http.", "db.", "rpc.", "messaging.", "url."),
    Scope.RESOURCE: ("service.", "k8s.", "host.", "container.", "cloud.", "telemetry."),
    Scope.EVENT: ("exception.",),
}  # of names that the conventions may have gained since
_HOMES = ((SPAN, Scope.SPAN, "spans"), (RESOURCE, Scope.RESOURCE, "resources"), (EVENT, Scope.EVENT, "events"))


INTEGERS = _names("""
    client.port code.column.number code.line.number db.operation.batch.size db.response.returned_rows destination.port
    gen_ai.request.max_tokens gen_ai.usage.input_tokens gen_ai.usage.output_tokens
    http.request.body.size http.request.resend_count http.request.size http.response.body.size http.response.size
    http.response.status_code messaging.batch.message_count messaging.kafka.offset messaging.message.body.size
    messaging.message.envelope.size network.local.port network.peer.port process.parent_pid process.pid process.vpid
    server.port source.port thread.id
    http.status_code net.host.port net.peer.port rpc.grpc.status_code
    """)
"""Attributes that are integers, former names included."""

BOOLEANS = _names("""
    browser.mobile faas.coldstart messaging.destination.anonymous messaging.destination.temporary
    messaging.kafka.message.tombstone messaging.temp_destination
    """)
"""Attributes that are true or false."""


_INTRINSICS = _names("name status statusMessage kind duration")
_OF_SCOPES = {
    **dict.fromkeys(("event:name", "event:timeSinceStart"), "event"),
    **dict.fromkeys(("link:traceID", "link:spanID"), "link"),
    **dict.fromkeys(("instrumentation:name", "instrumentation:version"), "scope"),
    **dict.fromkeys(("span:id", "span:parentID"), "span"),
}
_NOT_SENT = {  # what exporters of other formats write as attributes is a field in OTLP
    "otel.status_code": "status = error",
    "otel.status_description": "statusMessage",
    "span.kind": "kind = server",
}
_OTHER_SYNTAX = re.compile(
    r"""attributes(?:\.(.+)|\[["']?(.+?)["']?\])"""
)  # as the Collector and some back ends write it


def advise(scope: Scope, name: str) -> str | None:
    """Say what is probably wrong with an attribute in a rule; None where nothing seems to be."""
    if name.startswith(METADATA):
        return None
    if other := _OTHER_SYNTAX.match(name):
        key = other[1] or other[2]
        return f"this is the key {name}: for the attribute {key} write {scope.value}{key}"
    if name in _INTRINSICS and scope in (Scope.SPAN, Scope.ANY):
        return f"this is an attribute of the name {name}: for what every span has write {name}, without {scope.value}"
    if (own := f"{scope.value[:-1]}:{name}") in _OF_SCOPES:
        return f"this is an attribute of the name {name}: for what every {_OF_SCOPES[own]} has write {own}"
    if name in _NOT_SENT:
        return f"{name} is no attribute in OTLP: write {_NOT_SENT[name]}"
    if name in RENAMED:
        return f"{name} has been renamed: newer instrumentation sends {RENAMED[name]}"
    if name in _KNOWN:
        return _misplaced(scope, name)
    known = None if name.startswith(_FREE) else _nearest(name)
    if known is None:
        return None
    return f"{name} is not in the semantic conventions: did you mean {RENAMED.get(known, known)}?"


def scoped(name: str) -> str:
    """Say how an attribute that was written without a scope is written, as the end of a message."""
    if name in _NOT_SENT:
        return f"write {_NOT_SENT[name]}"
    if name not in _KNOWN and name not in RENAMED and not name.startswith(_FREE):
        name = _nearest(name) or name
    today = RENAMED.get(name, name).split()[0]
    if today in ELSEWHERE:
        return f"write {Scope.SPAN.value}{name}"
    for names, home, _ in _HOMES:
        if today in names or name.startswith(_PREFIXES[home]):
            return f"write {home.value}{name}"
    return f"write span.{name}, resource.{name}, or .{name} for both"


def _misplaced(scope: Scope, name: str) -> str | None:
    for names, home, what in _HOMES:
        if name not in names or scope is home:
            continue
        # An unscoped key is looked up on span and resource; events and links may repeat what is said of spans.
        if (scope is Scope.ANY and home is not Scope.EVENT) or (home is Scope.SPAN and scope is not Scope.RESOURCE):
            continue
        return f"{name} is an attribute of {what}: write {home.value}{name}"
    return None


class _Shape(NamedTuple):
    """A name made ready for comparison. Names that differ by few edits differ in few letters, so that most pairs are
    told apart by a set of bits, before their distance is computed."""

    name: str
    plain: str  # without case and kind of separator
    letters: int  # the set of characters of `plain`, modulo 64, as bits


def _shape(name: str) -> _Shape:
    plain = name.lower().replace("_", ".").replace("-", ".")
    letters = 0
    for character in plain:
        letters |= 1 << (ord(character) & 63)
    return _Shape(name, plain, letters)


_SHAPES = [_shape(name) for name in sorted(_KNOWN | RENAMED.keys())]
_PLAIN = {shape.plain: shape.name for shape in _SHAPES}


def _nearest(name: str) -> str | None:
    shape = _shape(name)
    if shape.plain in _PLAIN:
        return _PLAIN[shape.plain]
    length = len(name)
    edits = 0 if length < _SHORTEST else 1 if length < 2 * _SHORTEST else 2
    best = None
    for other in _SHAPES:
        if (shape.letters ^ other.letters).bit_count() > 2 * edits or abs(length - len(other.name)) > edits:
            continue
        distance = _distance(shape.plain, other.plain)
        if distance <= edits:
            best, edits = other.name, distance - 1
            if not edits:
                break
    return best


def _distance(one: str, other: str) -> int:
    """Count the edits from one to the other: a character more, less or another, or two neighbours swapped (optimal
    string alignment)."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for row, character in enumerate(one, 1):
        this = [row]
        for column, wanted in enumerate(other, 1):
            cost = min(last[column] + 1, this[-1] + 1, last[column - 1] + (character != wanted))
            if row > 1 and column > 1 and character == other[column - 2] and one[row - 2] == wanted:
                cost = min(cost, before[column - 2] + 1)
            this.append(cost)
        before, last = last, this
    return last[-1]
