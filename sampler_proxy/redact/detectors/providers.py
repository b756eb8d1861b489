"""Lists the forms of the keys that providers issue: what each begins with, what follows, and what is checked.

A row is about one form. Lengths are minimums where providers have changed them, since what begins so distinctively is a
key in whatever length. What has no form of its own without a name beside it (Algolia, Cohere, Datadog, Fastly, Mistral,
Okta without `SSWS`, PagerDuty, Postmark, Snyk, Vercel's old tokens and many more: plain hexadecimal, UUIDs, base 62) is
not here: `named.py` has it. Sources: the providers' own pages, and the public rules of secret scanners.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sampler_proxy.redact.detectors.types import Sign, signs

Check = Callable[[bytes], bool]
"""Whether what follows the prefix may be the rest of a key."""

LETTERS, ALNUM = "A-Za-z", "0-9A-Za-z"


def looks_random(body: bytes) -> bool:
    """Tell whether a text has what random ones have: a digit or both cases, and not the same few characters. So
    `your-token-here` and `xxxxxxxx` are none."""
    if len(set(body)) < min(7, len(body) // 3):
        return False
    return any(0x30 <= byte <= 0x39 for byte in body) or (not body.islower() and not body.isupper())


def is_mixed(body: bytes) -> bool:
    """Tell whether a text has digits, and letters of both cases: what names and words rarely have in one piece."""
    piece = max(body.replace(b"_", b"-").split(b"-"), key=len)
    return (
        len(piece) >= 12
        and looks_random(piece)
        and any(0x30 <= byte <= 0x39 for byte in piece)
        and piece != piece.lower()
        and piece != piece.upper()
    )


def is_hex_or_mixed(body: bytes) -> bool:
    """Tell whether a text is hexadecimal with digits and letters, of 32 characters or more, or `is_mixed`."""
    if len(body) >= 32 and not body.translate(None, b"0123456789abcdef"):
        return looks_random(body) and not body.isdigit() and not body.isalpha()
    return is_mixed(body)


def has_digit(body: bytes) -> bool:
    """Tell whether a text has a digit and looks random."""
    return looks_random(body) and any(0x30 <= byte <= 0x39 for byte in body)


class Form(NamedTuple):
    """One form of key."""

    provider: str
    prefixes: str
    """What keys begin with, separated by spaces."""
    rest: str
    """What follows, as `re` writes it. A part without upper limit (`{20,}`) is read for 256 characters, and then to the
    end of the word."""
    before: str = ""
    """A class of characters, of which no two may stand before the prefix: they would make another word of it."""
    check: Check = looks_random


_WORD = r"[0-9A-Za-z_-]"
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_UUID4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"

FORMS: tuple[Form, ...] = (
    # Models
    Form("OpenAI", "sk-proj- sk-svcacct- sk-admin- sk-service- sk-None-", _WORD + "{20,}"),
    Form("Anthropic", "sk-ant-", r"[a-z]{2,9}[0-9]{2}-[0-9A-Za-z_-]{20,}"),
    Form("OpenRouter", "sk-or-", r"v[0-9]-[0-9a-f]{32,}"),
    Form("Langfuse", "sk-lf-", _UUID),
    # OpenAI's old keys, and those of the many that speak its protocol.
    Form("OpenAI", "sk-", r"[0-9A-Za-z]{8,48}T3BlbkFJ[0-9A-Za-z_-]{16,}"),
    Form("OpenAI, DeepSeek, Moonshot, LiteLLM", "sk-", r"[0-9A-Za-z_-]{20,}", ALNUM, is_hex_or_mixed),
    Form("Hugging Face", "hf_ api_org_", r"[0-9A-Za-z]{30,}", LETTERS),
    Form("Groq", "gsk_", r"[0-9A-Za-z]{40,}"),
    Form("xAI", "xai-", r"[0-9A-Za-z_]{60,}"),
    Form("Perplexity", "pplx-", r"[0-9A-Za-z]{40,}"),
    Form("Replicate", "r8_", r"[0-9A-Za-z_-]{37,}", LETTERS),
    Form("LangSmith", "lsv2_pt_ lsv2_sk_", r"[0-9a-f]{32}_[0-9a-f]{10}"),
    Form("ElevenLabs", "sk_", r"[0-9a-f]{48}(?![0-9A-Za-z])", ALNUM),
    Form("NVIDIA", "nvapi-", _WORD + "{40,}"),
    Form("Cerebras", "csk-", r"[0-9a-z]{40,}"),
    Form("Fireworks", "fw_", r"[0-9A-Za-z]{22,}", LETTERS, has_digit),
    Form("Together", "tgp_v1_", _WORD + "{30,}"),
    Form("Jina", "jina_", r"[0-9a-f]{32}[0-9A-Za-z_-]{20,}"),
    Form("Tavily", "tvly-", r"(?:dev-|prod-)?[0-9A-Za-z]{28,}"),
    Form("Firecrawl", "fc-", r"[0-9a-f]{32}(?![0-9A-Za-z])", ALNUM),
    Form("E2B", "e2b_", r"[0-9a-f]{40}"),
    Form("Pinecone", "pcsk_", r"[0-9A-Za-z]{5,6}_[0-9A-Za-z]{40,}"),
    Form("Weights & Biases", "wandb_v1_", _WORD + "{30,}"),
    Form("Anyscale", "esecret_", r"[0-9a-z]{20,}"),
    # Code and packages
    Form(
        "GitLab",
        "glpat- gldt- glrt- glrtr- glptt- glcbt- glsoat- glimt- glft- glffct- glagent- gloas- glwt-",
        r"[0-9A-Za-z_-]{20,}(?:\.[0-9a-z]{2}\.?[0-9a-z]{7,9})?",
    ),
    Form("GitLab", "GR1348941", _WORD + "{20,}"),
    Form("Atlassian", "ATATT3 ATCTT3 ATSTT3", r"[0-9A-Za-z_+/-]{40,}(?:=[0-9A-F]{8})?"),
    Form("Bitbucket", "ATBB", r"[0-9A-Za-z]{32}"),
    Form("Bitbucket", "BBDC-", r"[0-9A-Za-z+/@_-]{40,}"),
    Form("npm", "npm_", r"[0-9A-Za-z]{36}"),
    Form("PyPI", "pypi-", "AgE" + _WORD + "{50,}"),
    Form("RubyGems", "rubygems_", r"[0-9a-f]{48}"),
    Form("crates.io", "cio", r"[0-9A-Za-z]{32}(?![0-9A-Za-z])", ALNUM, is_mixed),
    Form("NuGet", "oy2", r"[0-9a-z]{43}(?![0-9A-Za-z])", ALNUM, has_digit),
    Form("Clojars", "CLOJARS_", r"[0-9a-z]{60}"),
    Form("Open VSX", "ovsxp_ ovsxat_", _UUID),
    Form("Packagist", "packagist_", r"[a-z]{3}_[0-9a-f]{40,}"),
    Form("JSR", "jsrp_ jsrd_", r"[0-9A-Za-z]{20,}"),
    Form("Docker", "dckr_pat_ dckr_oat_", _WORD + "{27,}"),
    Form("JFrog", "AKCp", r"[0-9A-Za-z]{60,}"),
    Form("JFrog", "cmVmdGtu", r"[0-9A-Za-z]{50,}"),
    Form("Sourcegraph", "sgp_ slk_", r"(?:[0-9a-f]{16}_|local_)?[0-9A-Fa-f]{40,}"),
    Form("CircleCI", "CCIPAT_ CCIPRJ_", r"[0-9A-Za-z]{22}_[0-9A-Fa-f]{40}"),
    Form("Buildkite", "bkua_ bkaj_ bkct_", r"[0-9a-z]{40}"),
    Form("Harness", "pat. sat.", r"[0-9A-Za-z_-]{22}\.[0-9A-Za-z]{24}\.[0-9A-Za-z]{20}"),
    Form("Octopus Deploy", "API-", r"[0-9A-Z]{25,}(?![0-9A-Za-z])", ALNUM, has_digit),
    Form("SonarQube", "squ_ sqp_ sqa_", r"[0-9a-f]{40}"),
    Form("Postman", "PMAK- PMAT-", r"[0-9A-Za-z]{24,}(?:-[0-9A-Za-z]{34})?"),
    Form("ReadMe", "rdme_", r"[0-9a-z]{50,}"),
    Form("Prefect", "pnu_ pnb_", r"[0-9A-Za-z]{36}"),
    Form("Infracost", "ico-", r"[0-9A-Za-z]{32}", LETTERS),
    Form("Snyk", "snyk_uat. snyk_sat.", r"[0-9a-f]{8}\.(?:[a-z]{2,4}\.)?[0-9A-Za-z_-]{30,}"),
    Form("Scalingo", "tk-us- tk-eu-", _WORD + "{40,}"),
    # Clouds and hosts
    Form("DigitalOcean", "dop_v1_ doo_v1_ dor_v1_", r"[0-9a-f]{64}"),
    Form("Heroku", "HRKU-", _WORD + "{36,}"),
    Form("Fly.io", "fo1_", r"[0-9A-Za-z_-]{40,}", LETTERS),
    Form("Fly.io", "fm1_ fm1a_ fm1r_ fm2_", r"[0-9A-Za-z+/=_,-]{60,}"),
    Form("Vercel", "vcp_ vci_ vca_ vcr_ vck_", r"[0-9A-Za-z]{24,}", "", is_mixed),
    Form("Netlify", "nfp_ nfc_ nfo_ nfu_ nfb_", r"[0-9A-Za-z_]{36,}"),
    Form("Render", "rnd_", r"[0-9A-Za-z]{28,}", LETTERS, has_digit),
    Form("Cloudflare", "cfk_ cfut_ cfat_", r"[0-9A-Za-z]{40}[0-9a-f]{8}"),
    Form("Cloudflare", "v1.0-", r"[0-9a-f]{24}-[0-9a-f]{140,}"),
    Form("Deno Deploy", "ddp_ ddw_ ddo_", r"[0-9A-Za-z]{36}", LETTERS),
    Form("Alibaba Cloud", "LTAI", r"[0-9A-Za-z]{12,24}(?![0-9A-Za-z])", ALNUM, has_digit),
    Form("Tencent Cloud", "AKID", r"[0-9A-Za-z]{32}(?![0-9A-Za-z])", ALNUM, is_mixed),
    Form("Yandex Cloud", "AQVN", r"[0-9A-Za-z_-]{35,}"),
    Form("Yandex Cloud", "YCAJE", r"[0-9A-Za-z_-]{35,}(?![0-9A-Za-z_-])", ALNUM, is_mixed),
    Form("Yandex Cloud", "t1.", r"[0-9A-Za-z_-]{8,}={0,2}\.[0-9A-Za-z_-]{86}={0,2}", LETTERS),
    Form("Yandex", "y0_", r"[0-9A-Za-z_-]{50,}", LETTERS),
    Form("Akamai", "akab-", r"[0-9a-z]{16}-[0-9a-z]{16}"),
    Form("Backblaze", "K00", r"[0-9][0-9A-Za-z/+]{27}(?![0-9A-Za-z/+])", ALNUM, is_mixed),
    Form("Tailscale", "tskey-", r"(?:[a-z]{2,12}-)?[0-9A-Za-z]{8,}(?:-[0-9A-Za-z]{8,})?"),
    Form("NetBird", "nbp_", r"[0-9A-Za-z]{36}", LETTERS),
    Form("OpenShift", "sha256~", _WORD + "{40,}"),
    Form("Rancher", "token-", r"[0-9a-z]{5}:[0-9a-z]{54}"),
    Form("K3s", "K10", r"[0-9a-f]{64}::[0-9A-Za-z:._-]{8,}", ALNUM),
    Form("Amazon", "amzn.mws. amzn1.oa2-cs.v1.", r"[0-9a-f]{8}[0-9a-f-]{24,}"),
    Form("AWS AppSync", "da2-", r"[0-9a-z]{26}(?![0-9A-Za-z])", ALNUM, has_digit),
    # Secrets' own stores
    Form("HashiCorp Vault", "hvs. hvb. hvr.", _WORD + "{24,}"),
    Form(
        "Doppler",
        "dp.pt. dp.st. dp.ct. dp.sa. dp.scim. dp.audit. dp.said.",
        r"(?:[0-9a-z_-]{2,35}\.)?[0-9A-Za-z]{40,}",
    ),
    Form("1Password", "ops_eyJ", r"[0-9A-Za-z+/_-]{60,}={0,3}"),
    Form(
        "1Password",
        "A3-",
        r"[0-9A-Z]{6}-(?:[0-9A-Z]{11}|[0-9A-Z]{6}-[0-9A-Z]{5})-[0-9A-Z]{5}-[0-9A-Z]{5}-[0-9A-Z]{5}",
        ALNUM,
    ),
    Form("Infisical", "st.", r"[0-9a-f]{24}\.[0-9a-f]{32}\.[0-9a-f]{32}"),
    Form("Pulumi", "pul-", r"[0-9a-f]{40}", LETTERS),
    Form("Age", "AGE-SECRET-KEY-1", r"[02-9AC-HJ-NP-Z]{58}"),
    Form("Ory", "ory_pat_ ory_at_ ory_rt_ ory_ac_ ory_st_", r"[0-9A-Za-z_-]{18}[0-9A-Za-z_.-]{14,}"),
    Form("Stytch", "secret-live- secret-test-", r"[0-9A-Za-z_-]{18}[0-9A-Za-z_=-]{18,}"),
    # Money
    Form("Shopify", "shpat_ shpss_ shpca_ shppa_ shpua_ shprt_ shptka_", r"[0-9A-Fa-f]{32}"),
    Form("Square", "sq0atp- sq0csp- sq0idp- sq0acp-", _WORD + "{22,}"),
    Form("Square", "EAAA", r"[0-9A-Za-z_-]{60}(?![0-9A-Za-z])", ALNUM, is_mixed),
    Form("PayPal, Braintree", "access_token$production$ access_token$sandbox$", r"[0-9a-z]{16}\$[0-9a-f]{32}"),
    Form("PayPal", "A21AA", r"[0-9A-Za-z_-]{60,}", ALNUM, is_mixed),
    Form("Plaid", "access-sandbox- access-development- access-production-", _UUID),
    Form("Adyen", "AQE", r"[a-z]hm[0-9A-Za-z+/=]{50,}-[0-9A-Za-z+/=]{20,}-[^\s\"',\x00-\x1f]{4,}", ALNUM),
    Form("Razorpay", "rzp_live_ rzp_test_", r"[0-9A-Za-z]{14}"),
    Form("Flutterwave", "FLWSECK-", r"[0-9a-z]{32}-X"),
    Form("Flutterwave", "FLWSECK_TEST-", r"[0-9A-Za-z]{12,}(?:-X)?"),
    Form("EasyPost", "EZAK EZTK", r"[0-9A-Za-z]{54}"),
    Form("Shippo", "shippo_live_ shippo_test_", r"[0-9A-Fa-f]{40}"),
    Form("Duffel", "duffel_live_ duffel_test_", r"[0-9A-Za-z_-]{18}[0-9A-Za-z_=-]{25}"),
    Form("Lob", "live_ test_", r"(?:pub_)?[0-9a-f]{31,35}(?![0-9A-Za-z])", ALNUM),
    Form("Pagar.me", "ak_live_ ak_test_", r"[0-9A-Za-z]{30}", LETTERS),
    Form("Stripe", "pi_ seti_", r"[0-9A-Za-z]{24}_secret_[0-9A-Za-z]{25}", LETTERS),
    Form("Ramp", "ramp_sec_", r"[0-9A-Za-z]{48}"),
    Form("Bitcoin", "xprv yprv zprv", r"[1-9A-HJ-NP-Za-km-z]{100,}"),
    Form("Nostr", "nsec1", r"[02-9ac-hj-np-z]{58}"),
    # Messages
    Form("Twilio", "SK", r"[0-9a-f]{32}(?![0-9A-Za-z])", ALNUM),
    Form("SendGrid", "SG.", r"[0-9A-Za-z_-]{16,32}\.[0-9A-Za-z_-]{32,64}", LETTERS),
    Form("Mailgun", "key-", r"[0-9a-z]{32}(?![0-9A-Za-z])", ALNUM + "-", has_digit),
    Form("Brevo", "xkeysib- xsmtpsib-", r"[0-9a-f]{64}-[0-9A-Za-z]{16}"),
    Form("Resend", "re_", r"[0-9A-Za-z]{8}_[0-9A-Za-z]{24}(?![0-9A-Za-z])", ALNUM, is_mixed),
    Form("MailerSend", "mlsn.", r"[0-9a-f]{60,}"),
    Form("Intercom", "dG9rO", r"[0-9A-Za-z+/=_-]{40,}", ALNUM),
    Form("Discord", "mfa.", _WORD + "{80,}"),
    Form("PubNub", "sec-c-", r"[0-9A-Za-z]{40,}|" + _UUID, LETTERS),
    Form("Facebook, Instagram", "EAA IGQ IGAA", r"[0-9A-Za-z]{90,}", ALNUM, is_mixed),
    Form("X", "AAAAAAAAAAAAAAAAAAAAA", r"(?:[0-9A-Za-z]|%2[BFbf]|%3[Dd]){60,}", ALNUM, is_mixed),
    Form("LinkedIn", "WPL_AP0. WPL_AP1.", r"[0-9A-Za-z]{12,}\.[0-9A-Za-z+/=]{4,}"),
    Form("Twitch", "oauth:", r"[0-9a-z]{30}(?![0-9A-Za-z])", ALNUM, has_digit),
    # What watches
    Form("New Relic", "NRAK- NRII- NRIQ- NRRA- NRBR- NRJS-", r"[0-9A-Za-z_-]{19,}"),
    Form("Dynatrace", "dt0c01. dt0s01. dt0s02. dt0s03. dt0s06. dt0s08. dt0s16.", r"[0-9A-Z-]{8,24}\.[0-9A-Z]{64}"),
    Form("Grafana", "glsa_", r"[0-9A-Za-z]{32}_[0-9A-Fa-f]{8}"),
    Form("Grafana", "glc_", r"[0-9A-Za-z]{18}[0-9A-Za-z+/]{14,}={0,2}", LETTERS),
    Form("Grafana", "eyJrIjoi", r"[0-9A-Za-z]{60,}={0,2}"),
    Form("Sentry", "sntrys_", r"[0-9A-Za-z_-]{18}[0-9A-Za-z+/=_-]{22,}"),
    Form("Sentry", "sntryu_ sntrya_ sntryi_", r"[0-9a-f]{64}"),
    Form("Honeycomb", "hcaik_ hcxik_ hcbik_ hcalk_ hcxlk_ hcamk_ hcxmk_", r"[0-9a-z]{32,}"),
    Form("Axiom", "xaat- xapt- xait-", _UUID),
    Form("Coralogix", "cxtp_ cxup_", r"[0-9A-Za-z]{30,}"),
    Form("PostHog", "phx_ phs_ pha_ phr_", r"[0-9A-Za-z_]{32,}", LETTERS, is_mixed),
    Form("Rootly", "rootly_", r"[0-9a-f]{64}"),
    Form("Elastic", "essu_", r"[0-9A-Za-z_-]{18}[0-9A-Za-z+/=_-]{22,}", LETTERS),
    # Work
    Form("Linear", "lin_api_ lin_oauth_ lin_wh_", r"[0-9A-Za-z]{32,}"),
    Form("Notion", "ntn_", r"[0-9]{9,11}[0-9A-Za-z]{32,}", LETTERS),
    Form("Notion", "secret_", r"[0-9A-Za-z]{43}(?![0-9A-Za-z])", ALNUM, is_mixed),
    Form("Figma", "figd_ figu_ figp_ figo_ figoh_ figor_ figur_ figuh_", r"[0-9A-Za-z_-]{18}[0-9A-Za-z_=-]{18,}"),
    Form("Airtable", "pat", r"[0-9A-Za-z]{14}\.[0-9a-f]{64}"),
    Form("ClickUp", "pk_", r"[0-9]{5,12}_[0-9A-Z]{32}(?![0-9A-Za-z])", ALNUM),
    Form("Trello", "ATTA", r"[0-9a-f]{60,}"),
    Form("Typeform", "tfp_", r"[0-9A-Za-z_-]{18}[0-9A-Za-z_.=-]{22,}"),
    Form("Contentful", "CFPAT-", _WORD + "{40,}"),
    Form("HubSpot", "pat-na1- pat-na2- pat-na3- pat-eu1- pat-ap1-", _UUID),
    Form("Zoho", "1000.", r"[0-9a-f]{32}\.[0-9a-f]{32}"),
    Form("Salesforce", "5Aep861", r"[0-9A-Za-z._=]{60,}"),
    Form("Dropbox", "sl.", r"(?:u\.)?[0-9A-Za-z_-]{60,}", ALNUM + ".", is_mixed),
    Form("Frame.io", "fio-u-", r"[0-9A-Za-z_-]{18}[0-9A-Za-z_=-]{46}"),
    Form("Adafruit", "aio_", r"[0-9A-Za-z]{28}(?![0-9A-Za-z])", ALNUM, has_digit),
    Form("Apify", "apify_api_", r"[0-9A-Za-z-]{36}"),
    Form("Adobe", "p8e-", r"[0-9A-Za-z_-]{32}", LETTERS),
    Form("LaunchDarkly", "sdk-", _UUID4, ALNUM),
    Form("LaunchDarkly", "api-", _UUID4, ALNUM + "-"),
    Form("Mapbox", "sk. tk.", r"eyJ[0-9A-Za-z_-]{20,}\.[0-9A-Za-z_-]{20,}"),
    Form("Defined Networking", "dnkey-", r"[0-9A-Za-z_=-]{26}-[0-9A-Za-z_-]{18}[0-9A-Za-z_=-]{34}"),
    Form("42", "s-s4t2ud- s-s4t2af-", r"[0-9a-f]{64}"),
    # Databases
    Form("Databricks", "dapi dkea dose", r"[0-9a-f]{32}(?:-[0-9]{1,2})?(?![0-9A-Za-z])", ALNUM),
    Form("Supabase", "sbp_", r"(?:oauth_)?[0-9a-f]{40}"),
    Form("Supabase", "sb_secret_", _WORD + "{20,}"),
    Form("PlanetScale", "pscale_tkn_ pscale_pw_ pscale_oauth_", r"[0-9A-Za-z_-]{18}[0-9A-Za-z_=.-]{14,}"),
    Form("Neon", "napi_", r"[0-9a-z]{50,}"),
    Form("MongoDB Atlas", "mdb_sa_sk_", _WORD + "{32,}"),
    Form("CockroachDB", "CCDB1_", r"[0-9A-Za-z]{22}_[0-9A-Za-z]{40}"),
    Form("Aiven", "AVNS_", _WORD + "{12,}"),
    Form("DataStax Astra", "AstraCS:", r"[0-9A-Za-z]{24}:[0-9a-f]{64}"),
    Form("ClickHouse Cloud", "4b1d", r"[0-9A-Za-z]{38}(?![0-9A-Za-z])", ALNUM, is_mixed),
    Form("Confluent", "cflt", r"[0-9A-Za-z+/]{60}(?![0-9A-Za-z+/])", ALNUM, is_mixed),
    Form("Xata", "xau_", r"[0-9A-Za-z]{36,}"),
)


class Around(NamedTuple):
    """A form of key that has its sign in the middle or at the end."""

    provider: str
    hint: str
    """RE2: what must be there."""
    pattern: str
    """RE2, with the key as its only group."""
    signs: tuple[Sign, ...]
    """What stands in every text that `hint` and `pattern` match."""
    check: Check = looks_random


AROUND: tuple[Around, ...] = (
    Around(
        "Telegram",
        r"[0-9]{6}:AA[0-9A-Za-z_-]{8}",
        r"([0-9]{6,12}:AA[0-9A-Za-z_-]{32,34})(?:[^0-9A-Za-z-]|\z)",
        signs(":AA", then="0-9A-Za-z_-", times=8, before="0-9"),
    ),
    # The first part is a number in base 64.
    Around(
        "Discord",
        r"(?:[MNO][DTjz][AEIMQUYcgk][0-5w-z]){3}",
        r"((?:[MNO][DTjz][AEIMQUYcgk][0-5w-z]){5,6}[0-9A-Za-z_-]{0,6}\.[0-9A-Za-z_-]{6}\.[0-9A-Za-z_-]{25,})",
        signs("MD MT Mj Mz ND NT Nj Nz OD OT Oj Oz", then="MNODTjzAEIQUYcgk0-5w-z", times=10),
    ),
    Around(
        "Mailchimp",
        r"[0-9a-f]{4}-us[0-9]",
        r"(?:\b|[_m])([0-9a-f]{32}-us[0-9]{1,2})(?:\b|_)",
        signs("-us", then="0-9", before="0-9a-f"),
    ),
    Around(
        "Mailgun",
        r"-[0-9a-f]{8}-[0-9a-f]{8}",
        r"(?:\b|[_m])([0-9a-f]{32}-[0-9a-f]{8}-[0-9a-f]{8})(?:[^0-9A-Za-z-]|\z)",
        (Sign("-", then="0-9a-f", times=8, until="-", before="0-9a-f"),),
    ),
    Around(
        "New Relic",
        r"NRAL|NRMA",
        r"([0-9a-z]{32,42}(?:FFFFNRAL|NRAL|-NRMA))(?:\b|_)",
        signs("NRAL NRMA", before="0-9a-zF-"),
    ),
    Around(
        "HashiCorp Vault",
        r"(?:\b|m)[bsr]\.[0-9A-Za-z]{16}",
        r"(?:[^0-9A-Za-z_.-]|\A|\[[0-9;]*m)([bsr]\.[0-9A-Za-z]{24})(?:[^0-9A-Za-z_.-]|\z|\.(?:\s|\z))",
        signs("b. s. r.", then="0-9A-Za-z", times=24, until="^0-9A-Za-z_-"),
        is_mixed,
    ),
    Around(
        "HCP Terraform",
        r"\.atlasv1\.",
        r"([0-9A-Za-z]{14}\.atlasv1\.[0-9A-Za-z_-]{17}[0-9A-Za-z_=-]{23,})",
        signs(".atlasv1."),
    ),
    Around(
        "Asana",
        r"[0-9]{13}:[0-9a-f]{12}",
        r"([012]/[0-9]{13,18}(?:/[0-9]{13,18})?:[0-9a-f]{32})(?:\b|_)",
        signs(":", then="0-9a-f", times=32, until="^0-9A-Za-z", before="0-9"),
    ),
    Around(
        "Salesforce",
        r"00[0-9A-Za-z]{13}!",
        r"(00[0-9A-Za-z]{13}![0-9A-Za-z_.-]{59,}[0-9A-Za-z_-])",
        signs("!", then="0-9A-Za-z_.-", times=17, before="0-9A-Za-z"),
    ),
    Around("MaxMind", r"_mmk", r"(?:\b|[_m])([0-9A-Za-z]{6}_[0-9A-Za-z]{29}_mmk)", signs("_mmk", before="0-9A-Za-z")),
    Around("Okta", r"SSWS ", r"SSWS (00[0-9A-Za-z_-]{40})", (Sign("SSWS 00"),), has_digit),
    Around("Firebase", r":APA91b", r"([0-9A-Za-z_-]{8,40}:APA91b[0-9A-Za-z_-]{80,})", signs(":APA91b")),
    Around("Bedrock", r"bedrock-api-key-", r"(bedrock-api-key-[0-9A-Za-z+/=_-]{40,})", signs("bedrock-api-key-")),
)

_NAMES = (*(form.provider for form in FORMS), *(form.provider for form in AROUND))
PROVIDERS = tuple(sorted({name for names in _NAMES for name in names.split(", ")}, key=str.lower))
"""Whose keys are found by these forms."""
