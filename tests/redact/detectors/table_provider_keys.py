"""Keys of providers; every one is made up. They are put together when the tests run, so that nobody who looks for
secrets in this repository finds them."""

from __future__ import annotations

import binascii
import string

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase


def filler(length: int, alphabet: str = ALPHABET) -> str:
    """Looks random, is not."""
    return "".join(alphabet[(i * 37 + i * i * 11 + 5) % len(alphabet)] for i in range(length))


def github(prefix: str, body: str) -> str:
    """With the checksum as GitHub tells it: CRC-32, base 62, six digits."""
    rest = binascii.crc32(body.encode())
    return f"{prefix}_{body}" + "".join(ALPHABET[rest // 62**i % 62] for i in reversed(range(6)))


BASE32 = string.ascii_uppercase + "234567"
BASE64 = string.ascii_letters + string.digits + "+/"
HEX = string.digits + "abcdef"

AKIA = "AKIA" + filler(16, BASE32)
ASIA = "ASIA" + filler(16, BASE32)
AWS_SECRET = filler(40, BASE64)
STS = "IQoJb3JpZ2lu" + filler(200, ALPHABET)
AIZA = "AIza" + "Sy" + filler(33)
YA29 = "ya29." + "a0" + filler(60)
GOCSPX = "GOCSPX-" + filler(28)
REFRESH = "1//" + "0g" + filler(50)
STORAGE = filler(76, BASE64) + "+ASt" + filler(5) + "Q=="
COSMOS = filler(76, BASE64) + "ACDb" + filler(5) + "w=="
BUS = filler(33, BASE64) + "+ASb" + filler(5) + "8="
HUB = filler(33, BASE64) + "+AEh" + filler(5) + "8="
SEARCH = filler(42) + "AzSe" + "B" + filler(5)
FUNCTION = filler(44) + "AzFu" + filler(5) + "Q=="
REGISTRY = filler(42, BASE64) + "+ACR" + "C" + filler(5)
COMMON_FORM = filler(52) + "JQQJ99" + filler(26)
PLAIN_KEY = filler(86, BASE64) + "=="
SHORT_KEY = filler(43, BASE64) + "="
ENTRA = "abc" + "8Q~" + filler(34)
GHP = github("ghp", filler(30))
PAT = "github_pat_" + filler(22) + "_" + filler(59)
XOXB = "-".join(["xoxb", "123456789012", "1234567890123", filler(24)])
XOXP = "-".join(["xoxp", "123456789012", "123456789012", "1234567890123", filler(32, HEX)])
XAPP = "-".join(["xapp", "1", "A0123456789", "1234567890123", filler(64, HEX)])
HOOK = "/".join(["T" + filler(10, BASE32), "B" + filler(10, BASE32), filler(24)])
SK_LIVE = "sk" + "_live_" + filler(24)
SK_TEST = "sk" + "_test_" + filler(99)
RK_LIVE = "rk" + "_live_" + filler(24)
WHSEC = "wh" + "sec_" + filler(32)

UUID = "550e8400-e29b-41d4-a716-446655440000"
MD5 = "d41d8cd98f00b204e9800998ecf8427e"
SHA1 = "da39a3ee5e6b4b0d3255bfef95601890afd80709"
SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
NOISE = filler(400, BASE64)
EVERYBODY = [UUID, MD5, SHA1, SHA256, NOISE, "00-" + MD5 + "-" + MD5[:16] + "-01", "1732550501123456789", "$12.50"]

HITS: dict[str, list[str]] = {
    "aws_key": [
        f"x⟦{AKIA}⟧",
        f"7⟦{AKIA}⟧",
        f"key_⟦{AKIA}⟧",
        f"\x1b[1;31m⟦{AKIA}⟧\x1b[0m",
        f"⟦{AKIA}⟧",
        f"⟦{ASIA}⟧",
        f"⟦{'ABIA' + AKIA[4:]}⟧",
        f"⟦{'ACCA' + AKIA[4:]}⟧",
        "⟦AKIA" + "IOSFODNN7EXAMPLE⟧",
        f"aws_access_key_id = ⟦{AKIA}⟧",
        f"AWS_ACCESS_KEY_ID=⟦{AKIA}⟧",
        f'{{"AccessKeyId":"⟦{ASIA}⟧","SecretAccessKey":"⟦{AWS_SECRET}⟧"}}',
        f"aws_secret_access_key = ⟦{AWS_SECRET}⟧",
        f"AWS_SECRET_ACCESS_KEY=⟦{AWS_SECRET}⟧",
        f'secretAccessKey: "⟦{AWS_SECRET}⟧"',
        f"Credential=⟦{AKIA}⟧/20241125/us-east-1/s3/aws4_request",
        f"⟦{STS}⟧",
        f"x-amz-security-token: ⟦{STS}⟧",
        f"⟦{'ABSK' + filler(110, BASE64)}⟧",
        f"user ⟦{AKIA}⟧, ⟦{ASIA}⟧",
        f"é⟦{AKIA}⟧é",
    ],
    "gcp_key": [
        f"x⟦{AIZA}⟧",
        f"7⟦{AIZA}⟧",
        f"key_⟦{AIZA}⟧",
        f"\x1b[1;31m⟦{AIZA}⟧\x1b[0m",
        f"⟦{AIZA}⟧",
        f"key=⟦{AIZA}⟧",
        f"https://maps.example.com/api?key=⟦{AIZA}⟧&q=x",
        f'{{"apiKey":"⟦{AIZA}⟧"}}',
        f"⟦{'AIza' + filler(30) + '_-abc'}⟧",
        f"⟦{AIZA}⟧,⟦{AIZA}⟧",
        f"⟦{YA29}⟧",
        f"Bearer ⟦{YA29}⟧",
        f'"access_token":"⟦{YA29}⟧"',
        f"⟦{'ya29.c.' + filler(40)}⟧",
        f"⟦{GOCSPX}⟧",
        f"client_secret=⟦{GOCSPX}⟧",
        f'"client_secret":"⟦{GOCSPX}⟧"',
        f"⟦{REFRESH}⟧",
        f"refresh_token=⟦{REFRESH}⟧",
        f"key ⟦{AIZA}⟧ is invalid",
        f"⟦{'AQ.' + 'Ab8' + filler(48)}⟧",
        f"code=⟦{'4/0A' + filler(70)}⟧",
    ],
    "azure_key": [
        f"⟦{STORAGE}⟧",
        f"AccountName=x;AccountKey=⟦{STORAGE}⟧;EndpointSuffix=core.example.net",
        f"AccountName=x;AccountKey=⟦{PLAIN_KEY}⟧;EndpointSuffix=core.example.net",
        f"accountkey=⟦{PLAIN_KEY}⟧",
        f"⟦{COSMOS}⟧",
        f"AccountEndpoint=https://x.example.net/;AccountKey=⟦{COSMOS}⟧;",
        f"⟦{BUS}⟧",
        f"Endpoint=sb://x.example.net/;SharedAccessKeyName=Root;SharedAccessKey=⟦{BUS}⟧",
        f"SharedAccessKeyName=Root;SharedAccessKey=⟦{SHORT_KEY}⟧;EntityPath=x",
        f"⟦{HUB}⟧",
        f"api-key: ⟦{SEARCH}⟧",
        f"x-functions-key: ⟦{FUNCTION}⟧",
        f"docker login -p ⟦{REGISTRY}⟧",
        f"⟦{COMMON_FORM}⟧",
        f"⟦{ENTRA}⟧",
        f"client_secret=⟦{ENTRA}⟧",
        f'"secret":"⟦{ENTRA}⟧"',
    ],
    "github_token": [
        f"x⟦{GHP}⟧",
        f"7⟦{GHP}⟧",
        f"key_⟦{GHP}⟧",
        f"\x1b[1;31m⟦{GHP}⟧\x1b[0m",
        f"⟦{GHP}⟧",
        *(f"⟦{github(prefix, filler(30))}⟧" for prefix in ("gho", "ghu", "ghs", "ghr")),
        f"⟦{github('ghp', 'a' * 30)}⟧",
        f"⟦{github('ghp', '0' * 30)}⟧",
        f"https://⟦{GHP}⟧@github.com/org/repo",
        f"https://x-access-token:⟦{GHP}⟧@github.com/org/repo",
        f"GITHUB_TOKEN=⟦{GHP}⟧",
        f"token ⟦{GHP}⟧.",
        f'{{"token":"⟦{GHP}⟧"}}',
        f"⟦{GHP}⟧ ⟦{github('gho', 'b' * 30)}⟧",
        f"⟦{PAT}⟧",
        f"Bearer ⟦{PAT}⟧",
        f"⟦{'ghr_' + filler(76)}⟧",
        f"⟦{'ghs_' + filler(120)}⟧",
        f"⟦{'ghs_' + filler(24) + '_' + filler(200) + '.' + filler(100)}⟧",
        f"⟦{GHP}⟧⟦{GHP}⟧",
    ],
    "slack_token": [
        f"x⟦{XOXB}⟧",
        f"7⟦{XOXB}⟧",
        f"key_⟦{XOXB}⟧",
        f"\x1b[1;31m⟦{XOXB}⟧\x1b[0m",
        f"⟦{XOXB}⟧",
        f"⟦{XOXP}⟧",
        f"⟦{'xoxa-2-' + XOXB[5:]}⟧",
        f"⟦{'xoxr-' + XOXB[5:]}⟧",
        f"⟦{'xoxs-' + XOXB[5:]}⟧",
        f"⟦{'xoxc-' + XOXP[5:]}⟧",
        f"⟦{'xoxe-1-' + filler(140)}⟧",
        f"⟦{'xoxe.xoxp-1-' + filler(140)}⟧",
        f"⟦{'xoxd-' + filler(30) + '%2B' + filler(30)}⟧",
        f"⟦{XAPP}⟧",
        f"⟦{'xwfp-' + XOXB[5:]}⟧",
        f"https://hooks.slack.com/commands/⟦{HOOK}⟧",
        f"token=⟦{XOXB}⟧&channel=x",
        f"Bearer ⟦{XOXB}⟧",
        f'{{"token":"⟦{XOXB}⟧"}}',
        f"https://hooks.slack.com/services/⟦{HOOK}⟧",
        f"POST https://hooks.slack.com/services/⟦{HOOK}⟧ 200",
        f"⟦{XOXB}⟧, ⟦{XOXP}⟧",
    ],
    "stripe_key": [
        f"x⟦{SK_LIVE}⟧",
        f"7⟦{SK_LIVE}⟧",
        f"key_⟦{SK_LIVE}⟧",
        f"\x1b[1;31m⟦{SK_LIVE}⟧\x1b[0m",
        f"⟦{SK_LIVE}⟧",
        f"⟦{SK_TEST}⟧",
        f"⟦{RK_LIVE}⟧",
        f"⟦{RK_LIVE.replace('live', 'prod')}⟧",
        f"⟦{RK_LIVE.replace('live', 'test')}⟧",
        f"⟦{'sk_live_' + filler(99)}⟧",
        f"⟦{WHSEC}⟧",
        f"STRIPE_KEY=⟦{SK_LIVE}⟧",
        f"Bearer ⟦{SK_LIVE}⟧",
        f"curl -u ⟦{SK_TEST}⟧: https://api.example.com",
        f'{{"key":"⟦{SK_LIVE}⟧"}}',
        f"key ⟦{SK_LIVE}⟧.",
        f"⟦{SK_LIVE}⟧,⟦{RK_LIVE}⟧",
        f"secret=⟦{WHSEC}⟧&x",
        f"https://⟦{SK_LIVE}⟧@api.example.com",
        f"é⟦{SK_LIVE}⟧é",
    ],
}

MISSES: dict[str, list[str]] = {
    "aws_key": [
        *EVERYBODY,
        AKIA[:-1],
        AKIA + "A",
        AKIA.lower(),
        "AKIA" + "0189" * 4,  # not in base 32
        "AROA" + AKIA[4:],  # a role's name
        "AIDA" + AKIA[4:],
        "AKIA is the prefix of a key",
        "arn:aws:iam::123456789012:user/alice",
        "secret_access_key=short",
        "secret access key is missing",
        "AWS_SECRET_ACCESS_KEY=****",
        "aws_secret_access_key = " + SHA256,
        "SecretAccessKey",
    ],
    "gcp_key": [
        *EVERYBODY,
        AIZA[:-1],
        AIZA + "A",
        AIZA.upper(),
        "AIza****",
        "AIzawa street",
        "ya29",
        "ya29.short",
        "GOCSPX-short",
        "1//0short",
        "http://1//0",
        "project-123456.iam.gserviceaccount.com",
        "projects/p/locations/l/keyRings/r",
        "GOCSPX",
    ],
    "azure_key": [
        *EVERYBODY,
        PLAIN_KEY,  # nothing says that it is one: a SHA-512 in base 64 looks the same
        SHORT_KEY,
        "AccountKey=****",
        "AccountKey=short==",
        "SharedAccessKeyName=RootManageSharedAccessKey",
        "accesskey=none",
        SEARCH + "x",
        "x" + SEARCH,
        ENTRA + "abc",
        "8Q~short",
        "C:\\PROGRA~1\\x",
        "AzFu and AzSe",
        COMMON_FORM[:-1],
        f"/subscriptions/{UUID}/resourceGroups/rg",
    ],
    "github_token": [
        *EVERYBODY,
        GHP[:-1] + ("0" if GHP[-1] != "0" else "1"),  # checksum
        "ghp_" + "x" * 36,
        "ghp_" + filler(36),
        "gho_16C7e42F292c6912E7710c838347Ae178B4a",  # an example without checksum
        "ghp_short",
        "ghp_",
        "ghx_" + GHP[4:],
        GHP.replace("_", "-"),
        GHP[:-2],
        "github_pat_short",
        "github_pat_",
        PAT[:-1],
        "https://github.com/org/repo",
    ],
    "slack_token": [
        *EVERYBODY,
        "xoxb-your-token-here",
        "xoxb-",
        "xoxb",
        "xoxb-****",
        "xapp-1-A1",
        "xapplication-1",
        "https://hooks.slack.com/services/",
        "https://hooks.slack.com/services/****",
        "https://slack.com/api/chat.postMessage",
        "foxox-123456789012",
        "xoxo, see you",
        "C024BE91L",
        "XOXB-123456789012-1234567890123",
    ],
    "stripe_key": [
        *EVERYBODY,
        "pk_" + SK_LIVE[3:],  # public
        "sk_live_",
        "sk_live_short",
        "sk_live_****",
        "sk_dev_" + SK_LIVE[8:],
        "task_live_" + SK_LIVE[8:] + "?",
        "task_live_" + SK_LIVE[8:],
        "cus_" + SK_LIVE[8:],
        "pi_" + SK_LIVE[8:],
        "ch_" + SK_LIVE[8:],
        "whsec_short",
        "whsec",
        SK_LIVE.upper(),
        "sk-" + SK_LIVE[8:],
    ],
}
