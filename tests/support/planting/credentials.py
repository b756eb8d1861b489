"""Tokens that standards define, hashes of passwords, private keys, and secrets that only their name announces."""

from __future__ import annotations

from random import Random

from tests.support.planting.forms import Kind, Make, Secret, b64, compact, filled, form, mixed, one_of, url64, whole

_BEGIN, _END = "-----BEGIN ", "-----END "
_KEYS = (
    "PRIVATE KEY",
    "RSA PRIVATE KEY",
    "EC PRIVATE KEY",
    "OPENSSH PRIVATE KEY",
    "ENCRYPTED PRIVATE KEY",
    "DSA PRIVATE KEY",
    "PGP PRIVATE KEY BLOCK",
)


def _bytes(random: Random, size: int) -> bytes:
    return random.randbytes(size)


def _jwt(random: Random) -> Secret:
    header = random.choice(
        ({"alg": "HS256", "typ": "JWT"}, {"typ": "JWT", "alg": "RS256", "kid": filled("<h8>", random)})
    )
    claims = {
        "sub": filled("<d10>", random),
        "iat": random.randint(1_600_000_000, 1_900_000_000),
        "jti": filled("<h16>", random),
    }
    return whole(
        ".".join((url64(compact(header)), url64(compact(claims)), url64(_bytes(random, random.choice((32, 64, 256))))))
    )


def _jwe(random: Random) -> Secret:
    direct = random.random() < 0.5
    header = {"alg": "dir" if direct else "RSA-OAEP", "enc": "A256GCM"}
    key = "" if direct else url64(_bytes(random, 256))
    parts = (
        url64(compact(header)),
        key,
        url64(_bytes(random, 12)),
        url64(_bytes(random, 120)),
        url64(_bytes(random, 16)),
    )
    return Secret(".".join(parts), (parts[3],))


def _jwk(random: Random) -> Secret:
    secret = url64(_bytes(random, 32))
    public = {"kty": "EC", "crv": "P-256", "x": url64(_bytes(random, 32)), "y": url64(_bytes(random, 32))}
    key = random.choice(
        ({**public, "d": secret}, {"kty": "oct", "k": secret, "alg": "HS256"}, {**public, "d": secret, "use": "sig"})
    )
    text = compact(random.choice((key, {"keys": [key]}))).decode()
    return Secret(text, (secret,))


def _pem(newline: str) -> Make:
    def make(random: Random) -> Secret:
        body = b64(_bytes(random, random.choice((48, 120, 600))))
        label = random.choice(_KEYS)
        lines = [body[at : at + 64] for at in range(0, len(body), 64)]
        return Secret(newline.join((f"{_BEGIN}{label}-----", *lines, f"{_END}{label}-----")), tuple(lines[:2]))

    return make


def _pem_cut(random: Random) -> Secret:
    secret = _pem("\n")(random)
    return Secret(secret.text[: secret.text.rindex(_END)].rstrip(), secret.parts[:1])


def _basic(random: Random) -> Secret:
    pair = b64(f"{random.choice(('admin', 'svc-shop', 'deploy', 'api'))}:{mixed('<a12>', random)}".encode())
    scheme = random.choice(("Basic ", "Authorization: Basic ", "basic "))
    return Secret(scheme + pair, (pair,))


def _bearer(random: Random) -> Secret:
    token = mixed(random.choice(("<w40>", "<a32>", "<h64>", "<a20>.<a20>")), random)
    return Secret(random.choice(("Bearer ", "Authorization: Bearer ", "bearer ")) + token, (token,))


def _digest(random: Random) -> Secret:
    response, cnonce = filled("<h32>", random), filled("<h16>", random)
    text = (
        f'Authorization: Digest username="svc", realm="shop", nonce="{filled("<h32>", random)}", uri="/orders",'
        f' qop=auth, nc=00000001, cnonce="{cnonce}", response="{response}"'
    )
    return Secret(text, (response,))


def _sigv4(random: Random) -> Secret:
    signature = filled("<h64>", random)
    text = (
        "Authorization: AWS4-HMAC-SHA256 Credential="
        + mixed("AKIA<m16>", random)
        + "/20260102/eu-west-1/s3/aws4_request,"
        f" SignedHeaders=host;x-amz-date, Signature={signature}"
    )
    return Secret(text, (signature,))


def _scheme(*schemes: str) -> Make:
    def make(random: Random) -> Secret:
        token = mixed("<a40>", random)
        return Secret(f"{random.choice(schemes)}{token}", (token,))

    return make


def _django(random: Random) -> Secret:
    return whole(f"pbkdf2_sha256${random.choice((260000, 600000))}${mixed('<a22>', random)}${b64(_bytes(random, 32))}")


def _argon2(random: Random) -> Secret:
    variant = random.choice(("argon2id", "argon2i", "argon2d"))
    salt, digest = (b64(_bytes(random, size)).rstrip("=") for size in (16, 32))
    return whole(f"${variant}$v=19$m=65536,t=3,p=4${salt}${digest}")


def _password(random: Random) -> Secret:
    """As people and generators choose them: letters, digits, and signs that need no escape anywhere."""
    return whole(
        mixed(random.choice(("<L6><d4>", "<A5>-<d3>-<A4>", "<a16>", "<a24>", "<A8><d2>", "<L4>.<A6>_<d2>")), random)
    )


def _password_with_signs(random: Random) -> Secret:
    signs = "!#$%*+@^~?&/=,;:<>()[]{}|"
    body = mixed("<a10>", random)
    return whole(body[:3] + random.choice(signs) + body[3:7] + random.choice(signs) + body[7:])


def _letters(random: Random) -> Secret:
    return whole(filled("<L9-12>", random))


def _words(random: Random) -> Secret:
    """A passphrase of made-up words."""
    return whole(" ".join(filled("<L4-7>", random) for _ in range(4)))


def _saml(random: Random) -> Secret:
    assertion = (
        b"<samlp:Response xmlns:samlp='urn:oasis:names:tc:SAML:2.0:protocol' ID='_" + _bytes(random, 90).hex().encode()
    )
    return whole(b64(assertion + b"'/>"))


_PASSWORD: tuple[str, ...] = (
    "password",
    "db password",
    "user password",
    "passwd",
    "pwd",
    "db pwd",
    "admin passwd",
    "new password",
)
_PASSWORD += ("root password", "smtp password", "current password", "ssh password", "spring datasource password")
_PASSWORD += ("password confirmation", "password2", "old password", "keystore password", "vault password")
_TOKEN = ("token", "access token", "api token", "user token", "bot token", "refresh token", "id token", "auth token")
_ODD_TOKEN: tuple[str, ...] = (
    "next auth session token",
    "page access token",
    "change password token",
    "sync gateway token",
)
_ODD_TOKEN += ("continuation auth token", "reset password token", "start session token")
_NAMED: dict[str, tuple[Make, tuple[str, ...]]] = {
    "password": (_password, _PASSWORD),
    "password with signs": (_password_with_signs, _PASSWORD),
    "password of letters": (_letters, ("password", "db password", "passwd", "user password")),
    "passphrase": (_words, ("passphrase", "ssh passphrase", "password", "wallet passphrase")),
    "pass": (form("<a14>"), ("pass", "db pass", "smtp pass", "admin pass", "redis pass")),
    "passcode": (form("<d6>"), ("passcode", "user passcode", "voip passcode")),
    "pin": (form("<d4>"), ("pin", "user pin", "card pin")),
    "otp": (form("<d6>"), ("otp", "login otp", "totp", "user otp")),
    "mfa code": (form("<d6>"), ("mfa code", "two factor code", "verification code", "sms code")),
    "recovery code": (form("<l5>-<l5>"), ("recovery code", "backup code")),
    "cvv": (form("<d3>"), ("cvv", "card cvv", "cvc", "card cvc")),
    "api key": (
        one_of("<h32>", "<a40>", "<w32>", "<h8>-<h4>-4<h3>-a<h3>-<h12>"),
        ("api key", "apikey", "x api key", "weather api key"),
    ),
    "secret": (
        one_of("<a32>", "<h64>", "<b43>="),
        ("secret", "app secret", "webhook secret", "shared secret", "jwt secret"),
    ),
    "client secret": (one_of("<w40>", "<h8>-<h4>-4<h3>-a<h3>-<h12>"), ("client secret", "oauth client secret")),
    "token": (one_of("<a32>", "<h40>", "<w43>"), _TOKEN),
    "token with another's name": (one_of("<a32>", "<h40>"), _ODD_TOKEN),
    "header of a provider": (
        one_of("<a40>", "<h40>"),
        (
            *("x vault token", "private token", "x gitlab token", "x shopify access token", "x auth token"),
            *("x goog api key", "x rapidapi key", "cf access client secret", "x hasura admin secret"),
            *("x parse master key", "x consul token", "x forwarded access token", "x api token"),
        ),
    ),
    "key of an application": (
        one_of("<h64>", "<b43>=", "<a40>", "base64:<b43>="),
        (
            *("secret key base", "django secret key", "fernet key", "app key", "jwt key", "maps key", "session key"),
            *("hmac key", "cookie key", "openai key", "webhook signing key"),
        ),
    ),
    "otp or jwt behind a hyphen": (
        form("<a24>"),
        ("user jwt", "service jwt", "session jwt"),
    ),
    "session id": (
        one_of("<h32>", "<l26>", "s%3A<a32>"),
        ("session id", "php sessid", "jsessionid", "sid", "connect sid"),
    ),
    "csrf": (form("<w36>"), ("csrf token", "xsrf token", "csrfmiddlewaretoken", "x csrf token")),
    "signature": (one_of("<h64>", "<b43>="), ("signature", "x signature", "request signature")),
    "hub signature": (form("sha256=<h64>"), ("x hub signature 256",)),
    "code verifier": (form("<w64>"), ("code verifier",)),
    "assertion": (form("<w120>"), ("client assertion",)),
    "saml": (_saml, ("saml response", "samlresponse")),
    "sas": (form("sv=2023-11-03&ss=b&sp=rwl&se=2027-01-01&sig=<a43>%3D"), ("shared access signature",)),
    "private key": (form("<b64>"), ("private key", "ssh private key", "deploy private key")),
    "encryption key": (one_of("<h64>", "<b43>="), ("encryption key", "signing key", "data encryption key")),
    "access key": (form("<a32>"), ("access key", "storage access key", "access key secret")),
    "credentials": (form("<a24>"), ("credentials", "user credentials", "credential", "aws credentials")),
    "authorization": (
        one_of("<a40>", "Token <a40>", "ApiKey <b32>"),
        ("authorization", "proxy authorization", "x authorization"),
    ),
    "cookie": (form("sid=<h32>"), ("cookie", "set cookie")),
}

_WORDS = ("password of letters", "passphrase")


def kinds() -> list[Kind]:
    return [
        Kind("jwt", _jwt),
        Kind("jwe", _jwe),
        Kind("jwk", _jwk, fits="gentle", keys=("jwk", "message", "http.response.body")),
        Kind("pem", _pem("\n"), fits="gentle", keys=("message", "tls.key", "config")),
        Kind("pem in one line", _pem("\\n")),
        Kind("pem, cut off", _pem_cut, fits="gentle", keys=("message", "config")),
        Kind("bcrypt", one_of("$2b$12$<a53>", "$2y$10$<a53>", "$2a$10$<a53>")),
        Kind("argon2", _argon2),
        Kind(
            "crypt",
            one_of("$6$<a16>$<a86>", "$5$<a16>$<a43>", "$1$<a8>$<a22>", "$apr1$<a8>$<a22>", "$y$j9T$<a22>$<a43>"),
        ),
        Kind("django hash", _django),
        Kind("scram or ldap hash", one_of("{SSHA}<b32>", "SCRAM-SHA-256$4096:<b22>==$<b43>=:<b43>=")),
        Kind("basic", _basic),
        Kind("bearer", _bearer),
        Kind("digest", _digest, fits="gentle", keys=("message", "http.request.headers")),
        Kind("sigv4", _sigv4, fits="gentle", keys=("message", "http.request.headers")),
        Kind(
            "other schemes",
            _scheme(
                "Authorization: Token ",
                "Proxy-Authorization: Token ",
                "Authorization: ApiKey ",
                "Authorization: GenieKey ",
                "Authorization: ",
            ),
            fits="gentle",
            keys=("message",),
        ),
        *(Kind(name, make, names, alone=False, is_words=name in _WORDS) for name, (make, names) in _NAMED.items()),
    ]
