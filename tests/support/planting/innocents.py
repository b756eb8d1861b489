"""What must leave byte for byte: values of real telemetry, some of which look a little like secrets.

`semantic_conventions.json` holds the example values of OpenTelemetry's semantic conventions 1.44 (Apache-2.0), by
attribute; what redaction is to change (e-mail addresses, literals of statements, arguments of commands) is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from random import Random

from tests.support.planting.carriers import carriers
from tests.support.planting.forms import filled
from tests.support.planting.samples import Sample

CONVENTIONS = Path(__file__).parent / "semantic_conventions.json"
_TIMES = 4
"""So often a template is filled in."""

# family: attributes' keys, then templates, filled in as forms.py says.
_FAMILIES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "kubernetes": (
        ("k8s.pod.name", "k8s.object.name", "message"),
        (
            "checkout-<l10>-<l5>",
            "payment-service-<h10>-<l5>",
            "kube-proxy-<l5>",
            "coredns-<h9>-<l5>",
            "ip-10-<d2>-<d2>-<d1>.eu-west-1.compute.internal",
            "gke-prod-pool-<d1>-<h8>-<l4>",
            "aks-nodepool1-<d8>-vmss00000<d1>",
            "task-force-scheduler-<l5>",
            "token-controller-<h10>-<l5>",
            "secret-reconciler-<l5>",
            "default-token-<l5>",
            "postgres-0",
            "Successfully assigned shop/checkout-<h10>-<l5> to node-<d1>",
            "Back-off restarting failed container app in pod api-<h10>-<l5>_shop(<h8>-<h4>-4<h3>-a<h3>-<h12>)",
            'MountVolume.SetUp failed for volume "credentials" : secret "db-credentials" not found',
            "system:serviceaccount:shop:checkout",
            "checkout.shop.svc.cluster.local:8443",
        ),
    ),
    "cloud ids": (
        ("cloud.resource_id", "host.id", "message"),
        (
            "i-<h17>",
            "vpc-<h17>",
            "arn:aws:lambda:eu-west-1:<d12>:function:checkout:<d2>",
            "arn:aws:iam::<d12>:role/checkout-task",
            "arn:aws:secretsmanager:eu-west-1:<d12>:secret:prod/db-<a6>",
            "arn:aws:sns:us-east-1:<d12>:orders",
            "arn:aws:s3:::acme-invoices/2026/01",
            "arn:aws:ecs:eu-west-1:<d12>:task/prod/<h32>",
            "arn:aws:states:us-east-1:<d12>:execution:pay:<h8>-<h4>-4<h3>-a<h3>-<h12>",
            "/subscriptions/<h8>-<h4>-4<h3>-a<h3>-<h12>/resourceGroups/rg-shop/providers/Microsoft.Web/sites/checkout",
            "projects/acme-prod/locations/europe-west1/services/checkout",
            "projects/acme-prod/secrets/db-password/versions/3",
            "//compute.googleapis.com/projects/acme/zones/europe-west1-b/instances/<d19>",
            "projects/<d12>/serviceAccounts/checkout",
            "ocid1.instance.oc1.eu-frankfurt-1.<l60>",
            "https://sqs.eu-west-1.amazonaws.com/<d12>/orders",
            "subnet-<h8>",
            "ami-<h17>",
            "sg-<h17>",
            "eni-<h17>",
            "r-<l10>",
            "AROA<m17>",
            "Z<u13>",
        ),
    ),
    "versions": (
        ("service.version", "telemetry.sdk.version", "app.version", "message"),
        (
            "1.<d1>.<d2>",
            "v1.30.<d1>+k3s1",
            "2.0.0-rc.<d1>",
            "10.0.19045.<d1>",
            "Version=4.0.0.0",
            "agent version 1.<d1>.<d1>.<d1> started",
            "upgraded from v1.<d1>.0.<d1> to v2.0.0.<d1>",
            "FileVersion: 6.1.<d2>.<d1>",
            "version 120.0.6099.<d2> is out of date",
            "System.Data, Version=4.0.0.0, Culture=neutral, PublicKeyToken=<h16>",
            "mscorlib, Version=2.0.5.0, Culture=neutral, PublicKeyToken=<h16>",
            "openjdk 21.0.<d1>+13-LTS",
            "go1.23.<d1>",
            "PostgreSQL 16.<d1> (Debian 16.<d1>-1.pgdg120+2)",
            "5.15.0-<d3>-generic",
            "2026.01.<d2>.<d1>",
            "1.2.3-beta.<h7>",
            "0.0.0-20260102030405-<h12>",
            "@angular/core@17.<d1>.<d1>",
            "pkg:npm/%40angular/core@17.<d1>.<d1>",
            "checkout==1.<d1>.<d1>",
        ),
    ),
    "versions of four parts": (
        ("service.version", "app.version", "process.runtime.version", "db.client.version"),
        ("4.0.0.0", "1.<d1>.<d1>.<d1>", "10.0.<d2>.<d1>", "2.<d2>.<d2>.<d1>"),
    ),
    "hashes": (
        ("vcs.ref.head.revision", "container.image.id", "app.checksum", "http.response.header.etag", "message"),
        (
            "<h40>",
            "<h7>",
            "sha256:<h64>",
            "<h64>",
            "<h32>",
            "registry.acme.io/shop/checkout@sha256:<h64>",
            'W/"<h32>"',
            '"<h16>-<h6>"',
            "sha512-<b86>==",
            "md5 <h32> does not match",
            "crc32:<h8>",
            "commit <h40> on main",
            "layer <h12>: Pull complete",
            "build <h7> deployed",
            "ja3 <h32>",
            "SHA256:<b43>",
        ),
    ),
    "ids": (
        ("app.request.id", "order.id", "messaging.message.id", "message"),
        (
            "<h8>-<h4>-4<h3>-a<h3>-<h12>",
            "{<h8>-<h4>-4<h3>-b<h3>-<h12>}",
            "01<u24>",
            "req_<a14>",
            "cus_<a14>",
            "pi_<a24>",
            "evt_<a24>",
            "ch_<a24>",
            "order-<d6>",
            "65<h22>",
            "<w21>",
            "00-<h32>-<h16>-01",
            "Root=1-<h8>-<h24>",
            "chatcmpl-<a29>",
            "call_<a24>",
            "msg_01<a22>",
            "toolu_01<a22>",
            "<a22>",
            "AC<h32>",
            "0HN<u10>:00000003",
            "pk_live_<a24>",
            "pk_test_<a24>",
            "<d12>-<l32>.apps.googleusercontent.com",
            "job:<d5>:attempt:<d1>",
        ),
    ),
    "ids of 13 to 19 digits": (
        ("order.id", "messaging.kafka.offset", "tweet.id", "message"),
        (
            "<d13>",
            "<d14>",
            "<d15>",
            "<d16>",
            "<d17>",
            "<d18>",
            "<d19>",
            "order <d13> shipped",
            "batch <d16> of <d14>",
            "1<d12>",
            "17<d14>",
            "17<d17>",
            "1<d18>",
        ),
    ),
    "user agents": (
        ("user_agent.original", "http.user_agent"),
        (
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
                "Chrome/1<d2>.0.0.0 Safari/537.36"
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 17_<d1> like Mac OS X) AppleWebKit/605.1.15 (KHTML, "
                "like Gecko) Version/17.<d1> Mobile/15E148 Safari/604.1"
            ),
            "curl/8.<d1>.0",
            "Go-http-client/1.1",
            "python-requests/2.3<d1>.0",
            "okhttp/4.<d2>.0",
            "kube-probe/1.2<d1>",
            "ELB-HealthChecker/2.0",
            "Prometheus/2.5<d1>.0",
            "grpc-go/1.6<d1>.0",
            "aws-sdk-java/2.2<d1>.<d2> Linux/5.10.<d3>-225.880.amzn2.x86_64 OpenJDK_64-Bit_Server_VM/21.0.2+13-LTS",
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            "PostmanRuntime/7.3<d1>.0",
            "Apache-HttpClient/4.5.<d2> (Java/17.0.<d1>)",
        ),
    ),
    "stack traces": (
        ("exception.stacktrace", "exception.message"),
        (
            (
                'java.lang.NullPointerException: Cannot invoke "String.length()" because "token" is null\n'
                "\tat com.acme.auth.TokenFilter.check(TokenFilter.java:<d2>)\n"
                "\tat java.base/java.lang.Thread.run(Thread.java:1583)"
            ),
            (
                "Traceback (most recent call last):\n"
                '  File "/app/auth/password.py", line <d2>, in verify\n'
                "    raise InvalidPassword()\n"
                "auth.errors.InvalidPassword"
            ),
            "goroutine <d2> [running]:\nmain.(*Server).token(0xc000<h6>, {0x<h6>, 0x5})\n\t/src/server.go:<d3> +0x1d",
            (
                "TypeError: Cannot read properties of undefined (reading 'password')\n"
                "    at login (/app/src/auth.js:<d2>:17)\n"
                "    at async Promise.all (index 0)"
            ),
            (
                "System.IO.FileNotFoundException: Could not load file or assembly 'Acme.Auth, "
                "Version=1.0.0.0, Culture=neutral, PublicKeyToken=<h16>'.\n"
                "   at Acme.Program.Main() in C:\\src\\Program.cs:line <d2>"
            ),
            (
                "panic: runtime error: invalid memory address or nil pointer dereference [signal SIGSEGV: "
                "segmentation violation code=0x1 addr=0x0 pc=0x<h6>]"
            ),
            "org.springframework.security.authentication.BadCredentialsException: Bad credentials",
            "thread 'main' panicked at src/auth.rs:<d2>:<d1>: called `Option::unwrap()` on a `None` value",
            "io.jsonwebtoken.ExpiredJwtException: JWT expired <d5> milliseconds ago at 2026-01-02T03:04:05.000Z.",
            "KeyError: 'api_key'",
            "ActiveRecord::RecordInvalid (Validation failed: Password is too short (minimum is 8 characters))",
        ),
    ),
    "routes": (
        ("http.route", "url.path", "url.full", "http.target"),
        (
            "/users/{id}",
            "/api/v1/orders/<d5>",
            "/botany/list",
            "/bots/12",
            "/oauth/token",
            "/oauth2/v2.0/token",
            "/password/reset",
            "/reset-password",
            "/invite/accept",
            "/users/confirm",
            "/api/v1/tokens",
            "/v1/secrets/db/versions",
            "/login?next=%2Forders",
            "/verify-email",
            "/hooks/github",
            "/webhooks/stripe",
            "/.well-known/openid-configuration",
            "/invitations/{token}/accept",
            "/reset/:token",
            "https://api.acme.io/v1/orders?page=<d1>&limit=50",
            "https://shop.acme.io/de/schuhe/sneaker-<d5>.html?utm_source=news",
            "/static/js/main.<h8>.chunk.js",
            "/assets/app-<a8>.css",
            "/orders/<h8>-<h4>-4<h3>-a<h3>-<h12>/items",
            "http://10.0.0.<d1>:8080/healthz",
            "/api/v1/namespaces/shop/secrets/db-credentials",
            "/apis/authentication.k8s.io/v1/tokenreviews",
            "/search?q=password+manager",
            "/articles/how-to-choose-a-password",
            "/bot/status",
            "grpc.health.v1.Health/Check",
            "/token/refresh",
            "/search?key=orders&page=<d1>",
            "/errors?code=404",
            "/orders?state=open&sort_key=created_at",
            "/items?pageToken=CAoQAA",
            "/tokens?count=5",
            "https://hooks.acme.io/docs",
        ),
    ),
    "headers": (
        ("message", "http.request.headers", "exception.message"),
        (
            "Host: api.acme.io\r\nAccept: */*\r\nContent-Type: application/json\r\nContent-Length: <d3>\r\n\r\n",
            'WWW-Authenticate: Bearer realm="acme", error="invalid_token"',
            'Proxy-Authenticate: Basic realm="corp"',
            "Access-Control-Allow-Headers: Authorization, X-Api-Key, X-CSRF-Token, Cookie",
            "Vary: Authorization, Cookie",
            "Cache-Control: no-store, max-age=0",
            'ETag: "<h32>"',
            "X-RateLimit-Remaining: <d2>",
            "traceparent: 00-<h32>-<h16>-01",
            "X-Request-Id: <h8>-<h4>-4<h3>-a<h3>-<h12>",
            "Strict-Transport-Security: max-age=31536000; includeSubDomains",
            "Content-Security-Policy: default-src 'self'; script-src 'nonce-<b22>=='",
            "missing header X-Api-Key",
            "request has 2 cookies and no authorization",
        ),
    ),
    "code and schemas": (
        ("exception.message", "message", "code.snippet"),
        (
            "def login(user: str, password: str) -> Token:",
            "login(user: string, password: string): Promise<Token>",
            'Password string `json:"password"`',
            "String password = null;",
            "private final String token;",
            "const { password, token } = req.body",
            "if (password == null || password.isEmpty())",
            "if token == nil { return ErrNoToken }",
            "password = get_password()",
            "password=os.environ['DB_PASSWORD']",
            "token = request.headers.get('Authorization')",
            "secret: process.env.JWT_SECRET",
            "mutation Login($user: String!, $password: String!) { login(user: $user, password: $password) { id } }",
            "query { user(id: $id) { id token { expiresAt } } }",
            '<xs:element name="password" type="xs:string"/>',
            "<password/>",
            "<Token></Token>",
            "<password>****</password>",
            'missing field "password" at line <d1> column <d2>',
            "unknown field password of type User",
            "column users.password_hash does not exist",
            'null value in column "token" violates not-null constraint',
            'duplicate key value violates unique constraint "users_token_key"',
            "CREATE TABLE users (id uuid, password text NOT NULL, token text)",
            "ALTER TABLE users ADD COLUMN api_key text",
            "rpc Login(LoginRequest) returns (Token) {}",
            "string password = 2;",
            "expected type string for password, got number",
            "2 validation errors for Login: password: field required, token: field required",
            "ValueError: password cannot be empty",
            "token: <nil>",
            "password=(null)",
            "password = (sensitive value)",
            "User{name='bob', password='****'}",
            "Config(password=***, user=bob)",
            "AuthToken@<h8>",
            "com.acme.auth.PasswordService$$EnhancerBySpringCGLIB$$<h8>",
        ),
    ),
    "settings": (
        ("message", "process.environment_variables", "config"),
        (
            "PASSWORD_FILE=/run/secrets/db\nPORT=80",
            "TOKEN_URL=https://login.acme.io/oauth/token",
            "SECRET_NAME=prod/db",
            "SSH_AUTH_SOCK=/tmp/ssh-<a10>/agent.<d4>",
            "XAUTHORITY=/home/bob/.Xauthority",
            "API_KEY_HEADER=X-Api-Key",
            "PASSWORD_MIN_LENGTH=12",
            "TOKEN_TTL=3600",
            "SESSION_TIMEOUT=30",
            "AUTH_ENABLED=true CSRF_ENABLED=true",
            "PIN_COUNT=4",
            "KEYCLOAK_URL=https://id.acme.io",
            "KEYBOARD=de",
            "password: ${DB_PASSWORD}",
            'password: ""',
            "passwordPolicy: strict",
            "auth:\n  enabled: true\n  type: basic\n",
            "spring.datasource.password=${DB_PASSWORD}",
            "token.ttl=3600",
            "app --password **** --port 80",
            "docker run -e DB_PASSWORD -p 80:80 acme/shop:1.4",
            "authMechanism=SCRAM-SHA-256&authSource=admin",
            "Server=db1;Database=shop;Integrated Security=true;",
            "postgresql://shop@db1:5432/shop",
            "postgresql://shop:****@db1:5432/shop",
            "mongodb://mongo1:27017,mongo2:27017/shop?replicaSet=rs0",
            "jdbc:oracle:thin:@//db1:1521/ORCL",
            "redis://cache:6379/0",
        ),
    ),
    "sanitised sql": (
        ("db.query.text", "db.statement"),
        (
            "SELECT id, name FROM users WHERE password = ?",
            "SELECT * FROM orders WHERE id = $1 AND state = $2",
            "UPDATE users SET token = @p0 WHERE id = @p1",
            "INSERT INTO sessions (token, user_id) VALUES (?, ?)",
            "SELECT * FROM t WHERE a = :name",
            "SELECT price::float8 FROM items WHERE id = $1::uuid",
            "DELETE FROM carts WHERE updated_at < ?",
            "SELECT count(*) FROM information_schema.tables WHERE table_schema = ?",
            "BEGIN",
            "COMMIT",
            "SELECT u.password_hash, u.salt FROM users u WHERE u.email = ?",
            "SELECT * FROM t WHERE name LIKE ? ESCAPE ?",
            "CALL refresh_tokens(?)",
            "SELECT * FROM t WHERE k IN (?, ?, ?)",
            "SELECT a FROM t WHERE b = %s",
            "SHOW TABLES",
        ),
    ),
    "sanitised statements of other stores": (
        ("db.query.text", "db.statement"),
        (
            "redis|SET session:? ?",
            "redis|HMSET myhash field1 ? field2 ?",
            "redis|GET user:?",
            "redis|SET mykey ?",
            "redis|AUTH ?",
            "redis|PING",
            "redis|EVALSHA ? ? ?",
            "redis|MGET ? ? ?",
            "redis|PIPELINE",
            'mongodb|{"find": "users", "filter": {"password": "?"}}',
            'mongodb|{"aggregate": "orders", "pipeline": [{"$match": {"state": "?"}}]}',
            'mongodb|{"insert": "users"}',
            'mongodb|{"find":"users","filter":{"_id":"?"},"limit":"?"}',
            'elasticsearch|{"query":{"term":{"user.id":"?"}}}',
            "memcached|get ?",
            "memcached|set ?",
            "cassandra|SELECT * FROM ks.users WHERE token = ?",
            "dynamodb|GetItem",
        ),
    ),
    "log lines": (
        ("message", "log.message", "event.message"),
        (
            "2026-01-02 03:04:05,678 INFO [main] c.a.Login - user <d5> logged in in <d2> ms",
            'level=info ts=2026-01-02T03:04:05Z msg="request done" status=200 dur=<d2>ms bytes=<d4>',
            '10.0.0.<d1> - - [02/Jan/2026:03:04:05 +0000] "GET /orders HTTP/1.1" 200 <d4>',
            "connection refused: dial tcp 10.0.0.<d1>:5432: connect: connection refused",
            "[ERROR] upstream timed out (110: Connection timed out) while reading response header",
            "retry 3/5 in 200ms: rpc error: code = Unavailable desc = transport is closing",
            "Consumed 1<d2> records from topic orders partition 3 offset <d8>",
            "GC pause (G1 Evacuation Pause) 24M->8M(256M) <d1>.<d3>ms",
            "health check passed in <d2>ms",
            "slow query: <d4> ms",
            "user signed in from Berlin, DE",
            "cache hit ratio 0.<d3>",
            "Started CheckoutApplication in <d1>.<d3> seconds (process running for <d1>.<d3>)",
            "HikariPool-1 - Connection is not available, request timed out after 30000ms.",
            "deadlock detected: Process <d5> waits for ShareLock on transaction <d6>; blocked by process <d5>.",
            "Invalid state transition: PENDING -> PAID",
            'time=2026-01-02T03:04:05 level=WARN source=auth.go:<d2> msg="token expired" user_id=<d4>',
        ),
    ),
    "keys about secrets": (
        ("=",),
        (
            "password.length=12",
            "password.strength=strong",
            "password_policy=min-12",
            "password_changed_at=2026-01-02T03:04:05Z",
            "password_reset_required=false",
            "password_expired=true",
            "token_count=1<d3>",
            "token.count=1<d3>",
            "token_type=Bearer",
            "tokens.total=<d4>",
            "gen_ai.usage.input_tokens=<d4>",
            "llm.token_count.prompt=<d4>",
            "max_tokens=4096",
            "token.expires_in=3600",
            "token_expires_at=2026-01-02T03:04:05Z",
            "cookie_consent=accepted",
            "cookie.consent=all",
            "cookies.enabled=true",
            "authorization.decision=allow",
            "authorization.policy=RequireAdminRole",
            "authorization.result=success",
            "secret.version=3",
            "secret.name=prod/db",
            "secrets.count=<d2>",
            "next_token=eyJ2IjoxfQ",
            "pagination.next_token=<a12>",
            "page_token=<a12>",
            "continuation_token=<a12>",
            "credentials.type=service_account",
            "credential.provider=github",
            "session.id=<h8>-<h4>-4<h3>-a<h3>-<h12>",
            "session.duration=<d4>",
            "auth.method=oauth2",
            "auth.type=mtls",
            "auth.result=ok",
            "authentication.scheme=Bearer",
            "csrf.check=passed",
            "api_key.id=key_<a8>",
            "api_key.name=ci",
            "encryption_key.id=alias/acme",
            "encryption.algorithm=AES256-GCM",
            "signature.algorithm=rs256",
            "signature.valid=true",
            "access_key.age_days=<d2>",
            "pin.attempts=2",
            "otp.channel=sms",
            "passwordless=true",
            "secretary.name=Kim",
            "tokenizer.name=cl100k_base",
            "gpio.pins=4",
            "bypass=true",
            "compass.heading=<d2>",
            "passenger.count=3",
            "key=orders",
            "partition_key=eu-<d2>",
            "primary_key=id",
            "routing_key=orders.created",
            "sort_key=created_at",
            "cache_key=user:<d4>:profile",
            "idempotency_key=<h8>-<h4>-4<h3>-a<h3>-<h12>",
            "messaging.kafka.message.key=order-<d4>",
            "public_key.fingerprint=SHA256:<b43>",
            "author=kim",
            "authority=api.acme.io",
            "http.request.header.x-request-id=<h32>",
            "session_count=<d2>",
        ),
    ),
    "texts about secrets": (
        ("message", "exception.message", "log.message"),
        (
            "password: required",
            "password must be at least 12 characters",
            "Password is too short (minimum is 8 characters)",
            "missing authorization header",
            "invalid csrf token",
            "token expired",
            "token: 5 of 7",
            "pass: <d2> fail: 3",
            "tokens used: <d4>",
            "the password is incorrect",
            "your password has expired",
            "password reset requested by user <d4>",
            "no token provided",
            "invalid api key",
            "secret not found",
            "passwordless=true",
            "secretary=kim",
            "tokenize=<d1>",
            "PWD=/app",
            "PWD=/srv/shop\nOLDPWD=/\nHOME=/root",
            "continuationToken=<a16>",
            "nextPageToken=<a16>",
            "password: [hidden]",
            "password=****",
            "password: ********",
            "token=[REDACTED]",
            "api_key=<redacted>",
            "api_key=${API_KEY}",
            "password={{ db_password }}",
            "password=$DB_PASSWORD",
            "Authorization: Bearer ****",
            "Authorization: Bearer <token>",
            "secret=None",
            "password=null",
            "token=undefined",
            "pin=5",
            "sk-proj-****",
            "Incorrect API key provided: sk-proj-****<a4>.",
            "sk- is the prefix of a key",
            "keys begin with ghp_ or gho_",
            "secretName: db-credentials",
            "secretKeyRef: name: db key: password",
            "passwordFile=/run/secrets/db",
            "token_type=bearer",
            "grant_type=password",
            "response_type=token",
            "scope=token.read",
            "basic auth is disabled",
            "Basic authentication failed",
            "bearer token is malformed",
            "cookie banner shown",
            "session closed after <d3> s",
            "authorization denied for role viewer",
            "user changed the password",
            "password hashing took <d3> ms",
            "key: value",
            "public key: ok",
            "secret sauce",
            "tokenUrl: https://login.acme.io/token",
            "pinned to version <d1>",
            "bypass enabled",
            "token bucket is empty",
        ),
    ),
    "commands": (
        ("process.command_line", "message"),
        (
            "tar -xpf backup.tar -C /srv",
            "tar -p -xf a.tar",
            "ps -p <d4> -o rss=",
            "mkdir -p /var/lib/acme/data",
            "cp -p a.conf /etc/acme/",
            "ssh -p 2222 deploy@10.0.0.4",
            "docker run -p 8080:80 acme/shop:1.4",
            "nc -u 10.0.0.4 514",
            "sort -u names.txt",
            "date -u +%s",
            "python -u app.py --port 8080",
            "git log -p --oneline",
            "grep -a pattern file.bin",
            "ls -a /etc",
            "java -Xmx2g -jar shop.jar --server.port=8080",
            "mysql -p",
            "mysql -u root -p shop",
            "app --password-file /run/secrets/db",
            "app --token-ttl 3600 --key-id abc",
            "psql -h db1 -U shop -p 5432 shop",
            "redis-cli -h cache -p 6379 PING",
            "curl -u $USER:$PASSWORD https://acme.io",
            "nginx -g 'daemon off;'",
            "cmd/otecol --config=config.yaml",
            "kubectl get secret db-credentials -o yaml",
            "openssl x509 -in a.pem -noout -text",
            "az account show --query id",
            "sshpass -e ssh deploy@10.0.0.4",
            "docker login --password-stdin registry.acme.io",
            "sudo -u postgres psql",
            "unzip -P",
            "journalctl -u nginx -n 100",
            "systemctl status sshd",
        ),
    ),
    "json": (
        ("http.response.body", "app.payload", "message"),
        (
            '{"id": <d5>, "name": "sneaker", "price": 59.90}',
            '{"error": "invalid_token", "error_description": "The token expired"}',
            '{"token_type": "Bearer", "expires_in": 3600}',
            '{"password": null, "user": "bob"}',
            '{"password": "****"}',
            '{"usage": {"prompt_tokens": <d3>, "completion_tokens": <d3>}}',
            '{"items": [{"sku": "A-<d4>", "qty": 2}], "next_token": null}',
            '{"hash": "<h64>", "size": <d5>}',
            '{"status": "ok", "version": "1.<d1>.<d1>"}',
            '{"required": ["password", "token"]}',
            '{"code": "PASSWORD_TOO_SHORT", "field": "password"}',
            '[ERROR] {"id": <d5>, "state": "open"}',
            '{"id": <d5>, "n": NaN, "state": "open"}',
            "{'id': <d5>, 'ok': True}",
            '{"lat": 52.<d5>, "lon": 13.<d5>}',
        ),
    ),
    "paths and files": (
        ("file.path", "code.file.path", "message"),
        (
            "C:\\Users\\bob\\AppData\\Local\\Temp\\a<d4>.tmp",
            "/usr/lib/python3.11/site-packages/requests/auth.py",
            "/run/secrets/db-password",
            "/var/log/nginx/access.log.<d1>",
            "s3://acme-invoices/2026/01/<h8>.pdf",
            "src/main/java/com/acme/auth/PasswordEncoder.java",
            "node_modules/@aws-sdk/credential-providers/index.js",
            "file:///home/bob/docs/report-<d4>.pdf",
            "git@github.com:acme/shop.git",
            "oci://registry.acme.io/charts/shop:1.<d1>.<d1>",
            "D:\\a\\1\\s\\src\\Tokens\\Lexer.cs",
            "/api/keys.proto",
        ),
    ),
    "public keys and data": (
        ("tls.server.certificate", "app.data", "message"),
        (
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI<b43> bob",
            "data:image/png;base64,iVBORw0KGgo<b40>=",
            "----- BEGIN of report <d4> -----",
            "MIIB<b60>",
            "<b64>",
            "fingerprint <H2>:<H2>:<H2>:<H2>:<H2>:<H2>:<H2>:<H2>",
            "base64 of the report: JVBERi0xLjQK<b32>",
        ),
    ),
    "words like keys": (
        ("message", "code.function.name", "app.name"),
        (
            "skateboard_shop_<d4>",
            "pk_live_<a24>",
            "pk_test_51<a60>",
            "cache_key_<h64>",
            "load_test_of_the_payment_service_<d4>",
            "my_test_caseOfTheOrderService<d2>",
            "Signature: sha256WithRSAEncryption",
            "GPG_KEY=A035C8C19219BA821ECEA86B64E628F8D684696D",
            "https://kv1.vault.azure.net/secrets/db-password/<h32>",
            "podman run --user 1000:1000 acme/shop",
            "SK-<d6>",
            "hf_hub_download",
            "npm_config_registry=https://registry.npmjs.org/",
            "npm_lifecycle_event=start",
            "glpat",
            "key-value-store-<d4>",
            "live_orders_by_region_<d4>",
            "sl.id = o.sl_id",
            "task-force-orange-and-the-very-long-branch-name-<d4>",
            "ask-for-help-with-the-deployment-of-checkout",
            "risk-assessment-service-for-payments-in-europe",
            "disk-usage-of-the-primary-database-volume-<d2>",
            "pat-your-head-and-rub-your-belly",
            "AKIA is the prefix of an access key id",
            "xoxo",
            "dop_v1",
            "sq0atp",
            "SG.reports.daily.summary",
            "test_sk_live_mode_is_enabled",
            "EAAA",
            "AIza",
            "pypi-server",
            "vault-agent-injector",
            "hvs-controller",
            "r8_runner",
            "xai-explainability",
            "shpat_prefix",
            "ghost_town_population",
            "prefix_ghp_suffix",
            "secret_santa_event_<d4>",
            "ntn_queue",
            "sdk-for-java-and-kotlin",
            "api-gateway-in-eu-central-1",
            "API-VERSION-<d4>",
        ),
    ),
    "numbers and dates": (
        ("app.value", "message"),
        (
            "978-3-16-148410-0",
            "2026-01-02T03:04:05.678Z",
            "000-12-3456",
            "9<d2>-00-<d4>",
            "SKU 4-0<d2>-123",
            "<d1>,<d3>,<d3>.00 EUR",
            "52.<d6>,13.<d6>",
            "+0.<d4>",
            "1e-<d1>",
            "0x<h8>",
            "12:34:5<d1>",
            "00:1A:2B:3C:4D:5<d1>",
            "<d2>%",
            "Q<d1> 2026",
            "94<d3>-<d4>",
            "batch 2026-<d4>-<d2>",
            "DE<d9>",
            "ticket 123-45-678",
        ),
    ),
}


def _conventions() -> Iterator[Sample]:
    for key, values in json.loads(CONVENTIONS.read_text()).items():
        for value in values:
            yield Sample("semantic conventions", "", "innocent", "attribute", key, value, ())


def _filled(seed: int) -> Iterator[Sample]:
    for family, (keys, templates) in _FAMILIES.items():
        for template in templates:
            for number in range(_TIMES):
                random = Random(f"{seed}/{template}/{number}")
                text = filled(template, random)
                if number and text == template:
                    break
                key = random.choice(keys)
                beside: tuple[tuple[str, str], ...] = ()
                if key == "=":
                    key, _, text = text.partition("=")
                elif family.startswith("sanitised statements"):
                    system, _, text = text.partition("|")
                    beside = (("db.system.name", system),)
                place = random.choice(_PLACES[family]) if family in _PLACES else "attribute"
                yield Sample(family, "", "innocent", place, key, text, (), beside)


def _carried(seed: int) -> Iterator[Sample]:
    """The same values as members, parameters and fields of texts, by names that announce nothing."""
    around = [carrier for carrier in carriers() if carrier.announces and carrier.group in _GROUPS]
    around = [carrier for carrier in around if "Secret" not in carrier.templates[0]]
    for sample in _filled(seed):
        if sample.kind not in _FIELDS:
            continue
        random = Random(f"{seed}/{sample.value}")
        carrier = random.choice(around)
        if carrier.takes(sample.value):
            text = carrier.text(carrier.templates[0], random.choice(_NAMES), sample.value)
            yield Sample(
                "values in texts", carrier.name, "innocent", "attribute", random.choice(carrier.keys), text, ()
            )


_FIELDS = ("kubernetes", "cloud ids", "versions", "hashes", "ids", "user agents", "words like keys")
_GROUPS = ("json", "dumps", "pairs", "environment", "command line", "xml", "yaml", "header", "form and query")
_NAMES = (
    *("order id", "request id", "region", "pod", "image", "build", "etag", "state", "ref", "checksum", "author"),
    *("tokenizer", "secretary", "compass", "passenger", "keyboard", "monkey", "turkey", "pinned", "sidecar", "design"),
)
_ANYWHERE = ("attribute", "attribute", "event attribute", "status message", "map", "list")
_PLACES: dict[str, tuple[str, ...]] = dict.fromkeys(
    ("log lines", "texts about secrets", "words like keys", "stack traces"), _ANYWHERE
)
_PLACES |= {
    "ids": ("attribute", "event attribute", "resource"),
    "kubernetes": ("attribute", "resource", "event attribute"),
}
_PLACES |= {"routes": ("attribute", "attribute", "span name")}


# What `strict` masks or shortens besides, as its manual says: keys, addresses, and URLs with a query or an id.
_STRICT_KEYS = (
    *("user.name", "user.full_name", "enduser.*", "client.address", "net.*.ip", "net.sock.peer.addr", "http.client_ip"),
    *("db.user", "*.body", "gen_ai.*", "url.*", "http.target", "http.url", "*.address", "host.ip", "k8s.pod.ip"),
    *("dns.answers", "*addresses", "http.request.header", "rpc.*.metadata", "cicd.worker.id", "log.record.original"),
)
_STRICT_TEXT = re.compile(r"\b(?:10|127|172|192)(?:\.\d{1,3}){3}\b|://[^\s\"']*[?/#]|^/\S*(?:\?|/\d+\b|/[0-9a-f]{8}-)")


def stays_under_strict(sample: Sample) -> bool:
    """Tell whether the preset `strict` must leave an innocent alone, too."""
    texts = sample.value if isinstance(sample.value, list) else [sample.value]
    if any(fnmatchcase(sample.key, pattern) for pattern in _STRICT_KEYS):
        return False
    return not any(_STRICT_TEXT.search(str(text)) for text in texts)


def innocents(seed: int = 1) -> list[Sample]:
    return [*_conventions(), *_filled(seed), *_carried(seed)]
