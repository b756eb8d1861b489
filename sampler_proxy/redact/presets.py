"""Lists the key patterns of the presets, and the keys that name statements and URLs. The detectors are in
`detectors/catalogue.py`."""

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
)
# The names that announce a secret within a value are in `detectors/named.py`; a test holds both together.
# The elements of `process.command_args` cannot be judged one by one: a password stands alone there.
COMMON_KEYS = (
    *(
        "*password*",
        "*passwd*",
        "*passphrase*",
        "*passcode*",
        "*pwd",
        "pass",
        "*.pass",
        "*_pass",
        "*-pass",
        "pw",
        "*.pw",
    ),
    *(
        "*_pw",
        "*secret*",
        "*credential*",
        "*authorization*",
        "auth",
        "bearer",
        "*cookie*",
        "*client*assertion",
        "*samlresponse",
    ),
    *("*api_key*", "*api-key*", "*apikey*", "*access_key*", "*access-key*", "*accesskey*", "*private_key*"),
    *("*private-key*", "*privatekey*", "*encryption_key*", "*encryptionkey*", "*signing_key*", "*signingkey*"),
    *("*subscription-key*", "*subscriptionkey*", "*csrf*", "*xsrf*", "*cvv", "*cvc", "pin", "*.pin", "*_pin", "otp"),
    *("*.otp", "*_otp", "*totp", "jwt", "*.jwt", "*_jwt", "token", "*.token", "*_token", "*-token", "token.value"),
    *("*.token.value", "*accesstoken*", "*refreshtoken*", "*authtoken", "*idtoken", "/.*[a-z]Token/", "signature"),
    *("*-signature*", "*_signature", "*session_id", "*session-id", "*sessionid", "*sessid", "sid", "connect.sid"),
    *("*connection_string", "*connectionstring", "db.query.parameter.*", "db.operation.parameter.*"),
    "process.command_args",
)
STRICT_KEYS = (
    *COMMON_KEYS,
    *("user.name", "user.full_name", "user.email", "enduser.*", "client.address", "client.socket.address"),
    *("net.peer.ip", "net.sock.peer.addr", "http.client_ip", "*forwarded*", "*.phone*", "*.birth*", "db.user"),
    *("*request.body", "*response.body", "*request_body", "*response_body", "messaging.message.body"),
    *("gen_ai.*.messages", "gen_ai.prompt*", "gen_ai.completion*", "gen_ai.system_instructions"),
)
STRICT_URLS = ("strip_query", "strip_credentials", "strip_ids")
