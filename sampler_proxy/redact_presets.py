"""What the presets of `redact` hold, beside the detectors (see there), and which keys name statements and URLs."""

from __future__ import annotations

# Keys whose values are statements, or URLs and paths.
SQL_KEYS = frozenset({"db.statement", "db.query.text", "sql.query"})
URL_KEYS = frozenset(
    {
        *("url.full", "url.path", "url.query", "url.original", "http.url", "http.target", "http.path"),
        *("http.request.header.referer", "http.referer"),
    }
)

COMMON_KEYS = (
    *("*password*", "*passwd*", "*passphrase*", "*pwd", "*secret*", "*credential*", "*authorization*", "*cookie*"),
    *("*api_key*", "*api-key*", "*apikey*", "*access_key*", "*access-key*", "*accesskey*", "*private_key*"),
    *("*private-key*", "*privatekey*", "*encryption_key*", "*signing_key*", "*csrf*", "*xsrf*", "*cvv", "*cvc"),
    *("token", "*.token", "*_token", "*-token", "*accesstoken", "*refreshtoken", "*authtoken", "*idtoken"),
    *("*session_id", "*session-id", "*sessionid", "db.query.parameter.*", "db.operation.parameter.*"),
)
STRICT_KEYS = (
    *COMMON_KEYS,
    *("user.name", "user.full_name", "user.email", "enduser.*", "client.address", "client.socket.address"),
    *("net.peer.ip", "net.sock.peer.addr", "http.client_ip", "*forwarded*", "*.phone*", "*.birth*", "db.user"),
    *("*request.body", "*response.body", "*request_body", "*response_body", "messaging.message.body"),
    *("gen_ai.*.messages", "gen_ai.prompt*", "gen_ai.completion*", "gen_ai.system_instructions"),
)
STRICT_URLS = ("strip_query", "strip_credentials", "strip_ids")
