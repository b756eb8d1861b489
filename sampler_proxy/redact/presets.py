"""Lists the key patterns of the presets, and the keys that name statements and URLs. The names of secrets, which both
presets know, are in `secret_names.py`, the detectors in `detectors/catalogue.py`."""

from __future__ import annotations

# Keys whose values are statements, or URLs and paths.
SQL_KEYS = frozenset({"db.statement", "db.query.text", "sql.query"})
URL_KEYS = frozenset(
    {
        *("url.full", "url.path", "url.query", "url.original", "http.url", "http.target", "http.path"),
        *("http.request.header.referer", "http.referer"),
    }
)

# Keys of users that drivers and frameworks fill with `user:password`.
USER_KEYS = (
    *("url.user", "url.username", "*user_info", "*userinfo", "db.user", "db.username", "*.db.user", "*.db.username"),
    *("*datasource.user", "*datasource.username", "*data_source.username", "http.user", "*proxy.user", "*proxy_user"),
    *("db.user.name", "db.*.user", "db.*.username", "database.user", "database.username", "spring.*.username"),
    *("*connection.user", "*connection.username", "*jdbc.user", "*jdbc.username"),
)
# Keys of versions, which have up to four numbers, as an IPv4 address has.
VERSION_KEYS = ("*version", "*release", "*build", "*build.number", "*build_number", "*revision")
# Beside the names of secrets (`secret_names.py`). The parameters of a statement have no telling names, and the elements
# of a list of arguments cannot be judged one by one: a password stands alone there.
COMMON_KEYS = (*("db.query.parameter.*", "db.operation.parameter.*", "process.command_args", "container.command_args"),)
STRICT_KEYS = (
    *COMMON_KEYS,
    *("user.name", "user.full_name", "user.email", "enduser.*", "client.address", "client.socket.address"),
    *("net.peer.ip", "net.sock.peer.addr", "http.client_ip", "*forwarded*", "*.phone*", "*.birth*", "db.user"),
    *("*request.body", "*response.body", "*request_body", "*response_body", "messaging.message.body"),
    *("gen_ai.*.messages", "gen_ai.prompt*", "gen_ai.completion*", "gen_ai.system_instructions"),
)
STRICT_URLS = ("strip_query", "strip_credentials", "strip_ids")
