"""What protocols carry to let somebody in; every secret here is made up. Tokens are put together when the tests run, so
that nobody who looks for secrets in this repository finds them."""

from __future__ import annotations

import base64
import json


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def jwt(header: object, signature: str = "c2lnbmF0dXJlLW9mLXRoZS10b2tlbg") -> str:
    return f"{part(header)}.{part({'sub': 'nobody'})}.{signature}"


def basic(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


HS256 = jwt({"alg": "HS256", "typ": "JWT"})
RS256 = jwt({"kid": "1", "alg": "RS256"})
NONE = jwt({"alg": "none"}, "")
JWE = f"{part({'alg': 'RSA-OAEP', 'enc': 'A256GCM'})}.a2V5.aXY.Y2lwaGVy.dGFn"
DIRECT = f"{part({'alg': 'dir', 'enc': 'A128GCM'})}..aXY.Y2lwaGVy.dGFn"
SPACED = base64.urlsafe_b64encode(b'{\n "alg": "ES256"}').decode().rstrip("=") + ".e30.c2ln"
CUT = HS256[: HS256.rindex(".") - 4]
ALICE = basic("alice:open sesame")
BOB = basic("bob:x")
BODY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj"
PUBLIC = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKC"
OPEN = "WKn-ZIGevcwGIyyrzFoZNBdaq9_TsqzGl96oc0CWuis"
PART = "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"
DASHES = "-" * 5


def pem(kind: str, body: str = BODY, line: str = "\n") -> str:
    return f"{DASHES}BEGIN {kind}{DASHES}{line}{body}{line}{DASHES}END {kind}{DASHES}"


HITS: dict[str, list[str]] = {
    "jwt": [
        f"⟦{HS256}⟧",
        f"⟦{RS256}⟧",
        f"⟦{NONE}⟧",
        f"⟦{JWE}⟧",
        f"⟦{DIRECT}⟧",
        f"token_⟦{DIRECT}⟧",
        f"key_⟦{HS256}⟧",
        f"x⟦{HS256}⟧",
        f"\x1b[31m⟦{RS256}⟧\x1b[0m",
        f"⟦{SPACED}⟧",
        f"⟦{CUT}⟧",
        f"Bearer ⟦{HS256}⟧",
        f"token=⟦{HS256}⟧&x=1",
        f'{{"id_token":"⟦{RS256}⟧"}}',
        f"⟦{HS256}⟧ ⟦{RS256}⟧",
        f"<⟦{HS256}⟧>",
        f"https://example.com/#id_token=⟦{HS256}⟧",
        f"cookie: sid=⟦{HS256}⟧; path=/",
        f"token_⟦{HS256}⟧",
        f"é⟦{HS256}⟧é",
    ],
    "bearer": [
        "Bearer ⟦abc⟧",
        "bearer ⟦abc⟧",
        "BEARER ⟦0123456789abcdef⟧",
        "Authorization: Bearer ⟦abc⟧",
        "authorization=Bearer ⟦abc⟧ x",
        '{"authorization":"Bearer ⟦abc⟧"}',
        '{"Authorization": ["Bearer ⟦abc⟧"]}',
        f"Bearer ⟦{HS256}⟧",
        "sent Bearer ⟦mF_9.B5f-4.1JqM⟧ to the server",
        "sent Bearer ⟦abcdefghijklmnopqrstuvwxyz⟧.",
        "Bearer ⟦YWJjZGVm⟧",
        "auth=Bearer%20⟦abc123def⟧",
        "auth=Bearer+⟦abc123def⟧",
        "Bearer  ⟦abc/def+ghi==⟧",
        "'Bearer ⟦abc⟧'",
        "proxy-authorization: bearer ⟦t0ken⟧",
        "curl -H 'Authorization: Bearer ⟦s3cr3t⟧' https://example.com",
    ],
    "basic": [
        f"Basic ⟦{ALICE}⟧",
        f"basic ⟦{ALICE}⟧",
        f"Basic ⟦{BOB}⟧",
        f"Authorization: Basic ⟦{ALICE}⟧",
        f'{{"authorization":"Basic ⟦{ALICE}⟧"}}',
        f"Basic ⟦{ALICE.rstrip('=')}⟧",
        f"curl -H 'Authorization: Basic ⟦{ALICE}⟧' https://example.com",
        f"Basic ⟦{basic('a:b')}⟧",
        f"Basic ⟦{basic(':token')}⟧",
        f"Basic ⟦{basic('token:')}⟧",
        f"Basic ⟦{basic('jörg:größe')}⟧",
        f"Basic  ⟦{basic('svc:p:w')}⟧",
        f"auth=Basic%20⟦{BOB}⟧",
        f"auth=Basic+⟦{BOB}⟧",
        f"sent basic ⟦{ALICE}⟧ twice: Basic ⟦{BOB}⟧",
        f"Basic ⟦{basic('api:' + 'k' * 60)}⟧",
    ],
    "private_key": [
        f"⟦{pem('PRIVATE KEY')}⟧",
        f"⟦{pem('RSA PRIVATE KEY')}⟧",
        f"⟦{pem('EC PRIVATE KEY')}⟧",
        f"⟦{pem('DSA PRIVATE KEY')}⟧",
        f"⟦{pem('ENCRYPTED PRIVATE KEY')}⟧",
        f"⟦{pem('OPENSSH PRIVATE KEY')}⟧",
        f"⟦{pem('PGP PRIVATE KEY BLOCK')}⟧",
        f"⟦{pem('PRIVATE KEY', line=chr(13) + chr(10))}⟧",
        f"⟦{pem('PRIVATE KEY', line=' ')}⟧",
        f'{{"private_key":"⟦{pem("PRIVATE KEY", line=chr(92) + "n")}⟧"}}',
        f"key: ⟦{pem('PRIVATE KEY')}⟧ end",
        f"⟦{pem('PRIVATE KEY')}⟧\n⟦{pem('RSA PRIVATE KEY')}⟧",
        f"⟦{DASHES}BEGIN PRIVATE KEY{DASHES}\n{BODY}⟧",
        f"{pem('CERTIFICATE', PUBLIC)}\n⟦{pem('PRIVATE KEY')}⟧",
        f"⟦{pem('RSA PRIVATE KEY', 'Proc-Type: 4,ENCRYPTED' + chr(10) + BODY)}⟧",
        f"key ⟦{BODY}⟧ end",
        *(
            f'{{"key": "⟦{begin + BODY}⟧"}}'
            for begin in ("MHcCAQEEI", "MIGHAgEAMBMG", "MC4CAQAwBQYDK2Vw", "MIIEpAIBAAKC")
        ),
        f"⟦{base64.b64encode(pem('RSA PRIVATE KEY').encode()).decode()}⟧",
        f"data: ⟦{base64.b64encode(pem('PRIVATE KEY').encode()).decode()}⟧",
        f"⟦{base64.b64encode(pem('OPENSSH PRIVATE KEY').encode()).decode()}⟧",
        f'{{"kty":"EC","crv":"P-256","x":"{OPEN}","y":"{OPEN}","d":"⟦{PART}⟧"}}',
        f'{{"d": "⟦{PART}⟧", "n": "{OPEN}", "e": "AQAB", "p": "⟦{PART}⟧", "q": "⟦{PART}⟧", "kty": "RSA"}}',
        f'{{"kty":"RSA","dp":"⟦{PART}⟧","dq":"⟦{PART}⟧","qi":"⟦{PART}⟧"}}',
        f'{{"keys": [{{"kty": "oct", "k": "⟦{PART}⟧", "kid": "{OPEN}"}}]}}',
        f"{{'kty': 'OKP', 'crv': 'Ed25519', 'd': '⟦{PART}⟧', 'x': '{OPEN}'}}",
        f'"{{\\"kty\\":\\"EC\\",\\"d\\":\\"⟦{PART}⟧\\"}}"',
        f"⟦---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\n{BODY}\n---- END SSH2 ENCRYPTED PRIVATE KEY ----⟧",
    ],
}

MISSES: dict[str, list[str]] = {
    "jwt": [
        f"{part({'typ': 'JWT'})}.e30.c2ln",  # no algorithm
        f"{part({'alg': 1})}.e30.c2ln",
        f"{part(['alg', 'HS256'])}.e30.c2ln",
        f"{part({'alg': 'HS256', 'typ': 'JWT'})}",
        "eyJhbGciOiJIUzI1NiIsInR5cCI6.e30.c2ln",  # cut header
        "eyJ.eyJ.sig",
        "eyJhbGciOiJIUzI1NiJ9",
        "x" + HS256[3:],
        "eyewitness.example.com",
        "eyeglasses.frames.store",
        "www.eyJhbGciOi.com",
        "a.b.c",
        "ew.example.com",
        "com.example.eyJhb.Service",
        "4bf92f3577b34da6a3ce929d0e0e4736.00f067aa0ba902b7.01",
        "ZXlKaGJHY2lPaUpJVXpJMU5pSjk.ZTMw.c2ln",
        "1.2.3",
        "eyJrZXkiOiJ2YWx1ZSJ9.payload",
    ],
    "bearer": [
        "bearer token expired",
        "Bearer token",
        "missing bearer token",
        "Bearer authentication required",
        'Bearer realm="example"',
        'WWW-Authenticate: Bearer realm="example", error="invalid_token"',
        "Bearer realm=example, error=invalid_token",
        'www-authenticate: Bearer error="insufficient_scope"',
        "the bearer of bad news",
        "bearer is missing",
        "token_type=bearer",
        "Bearer",
        "Bearer ",
        "Bearer:abc",
        "forbearer abcdef0123456789",
        "Bearer ****",
        "supports bearer and basic auth",
        "bearer scheme",
        "bearers abc123def",
        "Bearer {token}",
    ],
    "basic": [
        "Basic authentication",
        "basic auth required",
        "Basic realm=x",
        'Basic realm="example"',
        "basic information about users",
        "basic usage: run it",
        "Basic " + basic("no colon here"),
        "Basic " + basic("a\n:b"),
        "Basic YQ",
        "Basic",
        "Basic ****",
        "Basic ======",
        "visual basic program",
        "basic plan upgraded",
        "Basic 4bf92f3577b34da6a3ce929d0e0e4736",
        "basics " + ALICE,
        "nonbasic " + ALICE,
        ALICE,
        "basic/ozone layers",
        "basic 550e8400-e29b-41d4-a716-446655440000",
    ],
    "private_key": [
        pem("PUBLIC KEY", PUBLIC),
        pem("CERTIFICATE", PUBLIC),
        pem("RSA PUBLIC KEY", PUBLIC),
        pem("CERTIFICATE REQUEST", PUBLIC),
        pem("PGP PUBLIC KEY BLOCK", PUBLIC),
        pem("PGP MESSAGE", PUBLIC),
        pem("EC PARAMETERS", PUBLIC),
        f"expected {DASHES}BEGIN PRIVATE KEY{DASHES}",
        f"no {DASHES}BEGIN PRIVATE KEY{DASHES} line in the file",
        f"{DASHES}END PRIVATE KEY{DASHES}",
        "BEGIN PRIVATE KEY",
        PUBLIC,
        f'{{"kty":"EC","crv":"P-256","x":"{OPEN}","y":"{OPEN}","kid":"1"}}',
        f'{{"kty":"RSA","n":"{OPEN}","e":"AQAB","alg":"RS256","use":"sig"}}',
        f'{{"d":"{PART}"}}',
        '{"kty":"EC","d":"****"}',
        base64.b64encode(pem("CERTIFICATE", PUBLIC).encode()).decode(),
        "MIIC" + BODY[8:],
        "PRIVATE KEY",
        f"{DASHES}BEGIN PRIVATE KEY",
        f"{DASHES}BEGIN private key{DASHES}\n{PUBLIC}",
        f"{DASHES}BEGIN PRIVATE KEY{DASHES}\n****\n{DASHES}END PRIVATE KEY{DASHES}",
        "---BEGIN PRIVATE KEY---\n" + PUBLIC,
    ],
}
