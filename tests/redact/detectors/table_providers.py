"""Keys of many providers, made of a template each when the tests run, so that nobody who looks for secrets in this
repository finds them.

A template is a list of pieces: a letter with a number is so many random characters (`h` hexadecimal, `H` in capitals,
`d` digits, `l` lower case and digits, `u` upper case and digits, `a` letters and digits, `w` of base 64 for URLs, `b`
of base 64), `uuid` is one, anything else stands for itself.
"""

from __future__ import annotations

import random
import re
import string
import uuid

ALPHABETS = {
    "h": string.digits + "abcdef",
    "H": string.digits + "ABCDEF",
    "d": string.digits,
    "l": string.digits + string.ascii_lowercase,
    "u": string.digits + string.ascii_uppercase,
    "a": string.digits + string.ascii_letters,
    "w": string.digits + string.ascii_letters + "-_",
    "b": string.digits + string.ascii_letters + "+/",
    "z": "23456789acdefghjkmnpqrstuvwxyz",
}
RANDOM = re.compile(rf"[{''.join(ALPHABETS)}][0-9]+")

TEMPLATES = {
    "OpenAI": ["sk- a20 T3BlbkFJ a20", "sk-proj- w74 T3BlbkFJ w74", "sk-svcacct- w58 T3BlbkFJ w58", "sk-proj- a48"],
    "OpenAI, admin": ["sk-admin- w58 T3BlbkFJ w58"],
    "like OpenAI": ["sk- h32", "sk- a48"],
    "Anthropic": ["sk-ant- api03- a93 AA", "sk-ant- admin01- a93 AA", "sk-ant- oat01- a93 AA"],
    "OpenRouter": ["sk-or- v1- h64"],
    "Langfuse": ["sk-lf- uuid"],
    "Hugging Face": ["hf_ a34", "api_org_ a34"],
    "Groq": ["gsk_ a52"],
    "xAI": ["xai- a80"],
    "Perplexity": ["pplx- a48"],
    "Replicate": ["r8_ a37"],
    "LangSmith": ["lsv2_pt_ h32 _ h10", "lsv2_sk_ h32 _ h10"],
    "ElevenLabs": ["sk_ h48"],
    "NVIDIA": ["nvapi- a64"],
    "Cerebras": ["csk- l48"],
    "Fireworks": ["fw_ a22"],
    "Together": ["tgp_v1_ a43"],
    "Jina": ["jina_ h32 a28"],
    "Tavily": ["tvly- a32", "tvly- dev- a32"],
    "Firecrawl": ["fc- h32"],
    "E2B": ["e2b_ h40"],
    "Pinecone": ["pcsk_ a6 _ a63"],
    "Weights & Biases": ["wandb_v1_ a40"],
    "Anyscale": ["esecret_ l40"],
    "GitLab": [
        *("glpat- a20", "gldt- a20", "glrt- a20", "glptt- h40", "glcbt- a2 _ a20", "glsoat- a20", "glimt- l25"),
        *("glpat- a27 .01. l9", "glrt- t1_ a27 .01. l9", "GR1348941 a20", "glagent- a50", "gloas- h64", "glft- a20"),
    ],
    "Atlassian": ["ATATT3 xFfGF0 a176 = H8", "ATCTT3 xFfG a176 = H8"],
    "Bitbucket": ["ATBB a32", "BBDC- b44"],
    "npm": ["npm_ a36"],
    "PyPI": ["pypi-AgE IcHlwaS5vcmc a150"],
    "RubyGems": ["rubygems_ h48"],
    "crates.io": ["cio a32"],
    "NuGet": ["oy2 l43"],
    "Clojars": ["CLOJARS_ l60"],
    "Open VSX": ["ovsxp_ uuid"],
    "Packagist": ["packagist_ out_ h68"],
    "JSR": ["jsrp_ a40"],
    "Docker": ["dckr_pat_ a27", "dckr_oat_ a32"],
    "JFrog": ["AKCp a69", "cmVmdGtu a56"],
    "Sourcegraph": ["sgp_ h16 _ h40", "sgp_ local_ h40", "sgp_ h40", "slk_ h64"],
    "CircleCI": ["CCIPAT_ a22 _ h40"],
    "Buildkite": ["bkua_ l40"],
    "Harness": ["pat. a22 . h24 . a20", "sat. a22 . h24 . a20"],
    "Octopus Deploy": ["API- u26"],
    "SonarQube": ["squ_ h40", "sqp_ h40", "sqa_ h40"],
    "Postman": ["PMAK- h24 - h34"],
    "ReadMe": ["rdme_ l70"],
    "Prefect": ["pnu_ a36"],
    "Infracost": ["ico- a32"],
    "Snyk": ["snyk_uat. h8 .us. a40"],
    "Scalingo": ["tk-us- a48"],
    "DigitalOcean": ["dop_v1_ h64", "doo_v1_ h64", "dor_v1_ h64"],
    "Heroku": ["HRKU- AA a58", "HRKU- uuid"],
    "Fly.io": ["fo1_ a43", "fm1_ b120", "fm2_ b600"],
    "Vercel": ["vcp_ a56", "vck_ a56"],
    "Netlify": ["nfp_ a36", "nfc_ a36"],
    "Render": ["rnd_ a28"],
    "Cloudflare": ["cfk_ a40 h8", "cfut_ a40 h8", "cfat_ a40 h8", "v1.0- h24 - h146"],
    "Deno Deploy": ["ddp_ a36"],
    "Alibaba Cloud": ["LTAI a20"],
    "Tencent Cloud": ["AKID a32"],
    "Yandex Cloud": ["AQVN a36", "YCAJE a35", "t1. a30 . a86"],
    "Yandex": ["y0_ a55"],
    "Akamai": ["akab- l16 - l16"],
    "Backblaze": ["K00 5 a27"],
    "Tailscale": ["tskey- auth- a16 - a32", "tskey- a12 - a20"],
    "NetBird": ["nbp_ a36"],
    "OpenShift": ["sha256~ a43"],
    "Rancher": ["token- l5 : l54"],
    "K3s": ["K10 h64 ::server: h32"],
    "Amazon": ["amzn.mws. uuid", "amzn1.oa2-cs.v1. h64"],
    "AWS AppSync": ["da2- l26"],
    "HashiCorp Vault": ["hvs. a95", "hvb. a140", "hvr. a95", "hvs. a24", "s. a24", "b. a24"],
    "HCP Terraform": ["a14 .atlasv1. a67"],
    "Doppler": ["dp.pt. a43", "dp.st. dev. a43", "dp.sa. a43"],
    "1Password": ["ops_eyJ b280", "A3- u6 - u11 - u5 - u5 - u5", "A3- u6 - u6 - u5 - u5 - u5 - u5"],
    "Infisical": ["st. h24 . h32 . h32"],
    "Pulumi": ["pul- h40"],
    "Age": ["AGE-SECRET-KEY-1 QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L QPZRY9X8GF2TVDW0S3JN54KHCE"],
    "Ory": ["ory_pat_ a40"],
    "Stytch": ["secret-live- a36"],
    "Shopify": ["shpat_ h32", "shpss_ h32", "shpca_ h32", "shppa_ H32"],
    "Square": ["sq0atp- a22", "sq0csp- a43", "EAAA a60"],
    "PayPal, Braintree": ["access_token$production$ l16 $ h32", "A21AA a90"],
    "Plaid": ["access-sandbox- uuid", "access-production- uuid"],
    "Adyen": ["AQE yhm b60 - b43 = - .Abc(12]x"],
    "Razorpay": ["rzp_live_ a14", "rzp_test_ a14"],
    "Flutterwave": ["FLWSECK- l32 -X", "FLWSECK_TEST- h32 -X"],
    "EasyPost": ["EZAK a54", "EZTK a54"],
    "Shippo": ["shippo_live_ h40", "shippo_test_ h40"],
    "Duffel": ["duffel_live_ a43"],
    "Lob": ["live_ h35", "test_ h35"],
    "Pagar.me": ["ak_live_ a30"],
    "Stripe": ["pi_ a24 _secret_ a25"],
    "Ramp": ["ramp_sec_ a48"],
    "Bitcoin": ["xprv z107"],
    "Nostr": ["nsec1 z58"],
    "Twilio": ["SK h32"],
    "SendGrid": ["SG. a22 . a43"],
    "Mailgun": ["key- h32", "h32 - h8 - h8"],
    "Mailchimp": ["h32 -us12"],
    "Brevo": ["xkeysib- h64 - a16", "xsmtpsib- h64 - a16"],
    "Resend": ["re_ a8 _ a24"],
    "MailerSend": ["mlsn. h64"],
    "Intercom": ["dG9rO a55 ="],
    "Discord": ["MTIzNDU2Nzg5MDEyMzQ1Njc4 . a6 . a38", "mfa. a84"],
    "Telegram": ["d9 :AA a33", "d10 :AA w33"],
    "PubNub": ["sec-c- a48"],
    "Facebook, Instagram": ["EAA MBA a150", "IGQ V a120"],
    "X": ["AAAAAAAAAAAAAAAAAAAAA A a20 %2F a70"],
    "LinkedIn": ["WPL_AP1. a16 . a8 =="],
    "Twitch": ["oauth: l30"],
    "New Relic": ["NRAK- u27", "NRJS- h19", "NRII- a32", "h32 FFFFNRAL", "eu01xx h26 FFFFNRAL"],
    "Dynatrace": ["dt0c01. u24 . u64"],
    "Grafana": ["glsa_ a32 _ h8", "glc_ eyJ a80", "eyJrIjoi a80"],
    "Sentry": ["sntrys_ eyJ a120 _ a43", "sntryu_ h64"],
    "Honeycomb": ["hcaik_ l58", "hcxik_ l58"],
    "Axiom": ["xaat- uuid"],
    "Coralogix": ["cxtp_ a30"],
    "PostHog": ["phx_ a43"],
    "Rootly": ["rootly_ h64"],
    "Elastic": ["essu_ a60"],
    "Linear": ["lin_api_ a40", "lin_oauth_ h64"],
    "Notion": ["ntn_ d11 a35", "secret_ a43"],
    "Figma": ["figd_ a40", "figu_ a40"],
    "Airtable": ["pat a14 . h64"],
    "Asana": ["1/ d16 : h32", "2/ d16 / d16 : h32"],
    "ClickUp": ["pk_ d8 _ u32"],
    "Trello": ["ATTA h64"],
    "Typeform": ["tfp_ a59"],
    "Contentful": ["CFPAT- a43"],
    "HubSpot": ["pat-na1- uuid", "pat-eu1- uuid"],
    "Zoho": ["1000. h32 . h32"],
    "Salesforce": ["5Aep861 a80", "00 D a12 ! a90"],
    "Dropbox": ["sl. a135", "sl. u. a135"],
    "Frame.io": ["fio-u- a64"],
    "Adafruit": ["aio_ a28"],
    "Apify": ["apify_api_ a36"],
    "Adobe": ["p8e- a32"],
    "LaunchDarkly": ["sdk- uuid", "api- uuid"],
    "Mapbox": ["sk.eyJ a60 . a22"],
    "Defined Networking": ["dnkey- a26 - a52"],
    "42": ["s-s4t2ud- h64"],
    "Databricks": ["dapi h32", "dapi h32 -2"],
    "Supabase": ["sbp_ h40", "sb_secret_ a31"],
    "PlanetScale": ["pscale_tkn_ a43", "pscale_pw_ a43", "pscale_oauth_ a43"],
    "Neon": ["napi_ l64"],
    "MongoDB Atlas": ["mdb_sa_sk_ a40"],
    "CockroachDB": ["CCDB1_ a22 _ a40"],
    "Aiven": ["AVNS_ a19"],
    "DataStax Astra": ["AstraCS: a24 : h64"],
    "ClickHouse Cloud": ["4b1d a38"],
    "Confluent": ["cflt a60"],
    "Xata": ["xau_ a44"],
    "Helicone": ["sk-helicone- l7 - l7 - l7 - l7", "sk-helicone-eu- l7 - l7 - l7 - l7"],
    "LlamaIndex": ["llx- a48"],
    "Modal": ["ak- a22", "as- a22"],
    "RunPod": ["rpa_ u44"],
    "Friendli": ["flp_ a40"],
    "turbopuffer": ["tpuf_ a32"],
    "Chroma": ["ck- a44"],
    "Cursor": ["crsr_ h64"],
    "JetBrains": ["perm: b20 . b12 . a30", "perm- b18 = . b8 . a30"],
    "dbt": ["dbtc_ w48", "dbtu_ w48"],
    "WakaTime": ["waka_ uuid"],
    "Portainer": ["ptr_ b43 ="],
    "Inngest": ["signkey-prod- h64"],
    "Val Town": ["vtwn_ a27"],
    "Unkey": ["unkey_ a22"],
    "Volcengine": ["AKLT a43"],
    "Baidu": ["ALTAK a21"],
    "Alibaba Cloud, temporary": ["STS. a28"],
    "Dashlane": ["dls_ u16 _ a40"],
    "Authress": ["sc_ a20 . a5 .acc- l20 . b60"],
    "Klaviyo": ["pk_ h34"],
    "WooCommerce": ["ck_ h40", "cs_ h40"],
    "Mollie": ["live_ a30", "test_ a30"],
    "GoCardless": ["live_ a40"],
    "Brex": ["bxt_ a36"],
    "Polar": ["polar_oat_ a40", "polar_pat_ a40"],
    "SettleMint": ["sm_aat_ a16", "sm_pat_ a16", "sm_sat_ a16"],
    "Mandrill": ["md- a22"],
    "Telnyx": ["KEY0 H31 _ a22"],
    "SignalWire": ["PT h48"],
    "Svix": ["testsk_ a32 .eu", "sk_ a32 .us"],
    "Nylas": ["nyk_v0_ a64"],
    "Canva": ["cnvca a50"],
    "Fauna": ["fnA a37"],
    "Ubidots": ["BBFF- a30"],
    "Zuplo": ["zpka_ h32 _ h8"],
    "Nightfall": ["NF- a32"],
    "Endor Labs": ["endr+ a16"],
    "Bitwarden": ["0. uuid . a30 : b22 =="],
    "Knock": ["sk_ a43"],
    "Xendit": ["xnd_production_ a60"],
    "Klarna": ["klarna_live_api_ a44"],
    "Liveblocks": ["sk_prod_ a64", "sk_dev_ a64"],
    "Trigger.dev": ["tr_prod_ a20"],
    "Browserbase": ["bb_live_ a27"],
    "MaxMind": ["a6 _ a29 _mmk"],
    "Firebase": ["a11 :APA91b a134"],
    "Bedrock": ["bedrock-api-key- YmVkcm9jay5hbWF6b25hd3MuY29t a200"],
}
# Such have their sign elsewhere: what stands before belongs to them, or hides them.
WITHOUT_PREFIX = (
    *("HCP Terraform", "Mailchimp", "Mailgun", "Telegram", "Asana", "MaxMind", "Firebase"),
    *("Bitwarden", "Mollie", "GoCardless"),
)


def made(template: str, seed: int) -> str:
    """A key; with digits, and letters of both cases, wherever it has room for them."""
    rng = random.Random(f"{template} {seed}")
    out = ""
    for piece in template.split():
        if RANDOM.fullmatch(piece):
            count, alphabet = int(piece[1:]), ALPHABETS[piece[0]]
            body = "".join(rng.choice(alphabet) for _ in range(max(0, count - 3)))
            out += (
                body
                + ("aB7" if piece[0] in "awb" else "".join(rng.choice(alphabet) for _ in range(3)))[: count - len(body)]
            )
        else:
            out += str(uuid.UUID(int=rng.getrandbits(128), version=4)) if piece == "uuid" else piece
    return out


def hits(provider: str, template: str) -> list[str]:
    key = made(template, 0)
    texts = [
        f"⟦{key}⟧",
        f"Incorrect API key provided: ⟦{made(template, 1)}⟧.",
        f'{{"key": "⟦{made(template, 2)}⟧", "model": "x"}}',
        f"API_KEY=⟦{made(template, 3)}⟧ run",
    ]
    if provider not in WITHOUT_PREFIX and not key.startswith(("NRAL", "00", "eu01")) and "FFFFNRAL" not in key:
        texts += [f"\x1b[31m⟦{made(template, 4)}⟧\x1b[0m"]
    if provider not in WITHOUT_PREFIX and not re.match(r"[sb]\.|00|[0-9a-f]{26}|eu01", key):
        texts += [f"backup_⟦{made(template, 5)}⟧"]
    return texts


def misses(template: str) -> list[str]:
    prefix, rest = template.split(" ", 1)
    if RANDOM.fullmatch(prefix):
        return [
            made(template, 0)[: len(made(template, 0)) // 2],
            re.sub(r"[0-9A-Za-z]{12,}", "****", made(template, 0)),
        ]
    return [
        prefix,
        prefix + "****",
        prefix + "x" * 40,
        prefix + "<token>",
        prefix + "your-token-here",
        prefix + rest[:3],
    ]


# Glued to a word: capitals and small letters tell where the key begins.
GLUED = [
    f"upload⟦{made('hf_ a34', 1)}⟧",
    f"the token is my⟦{made('r8_ a37', 1)}⟧.",
    f"key ⟦{made('key_ h64', 1)}⟧",
    f"xnfp⟦{made('nfp_ a36', 1)}⟧",
]

HITS = {
    "provider_key": [
        *(text for name, all_of in TEMPLATES.items() for one in all_of for text in hits(name, one)),
        *GLUED,
    ]
}

MISSES = {
    "provider_key": [
        *(text for all_of in TEMPLATES.values() for one in all_of for text in misses(one)),
        *("task-force-eleven-2024-planning-meeting", "risk-assessment-2024Q3FinalVersion2", "disk-usage-exporter-v2"),
        *("sk-proj-****", "sk-", "sk-learn-contrib", "desk-0123456789abcdef0123456789abcdef", "sk-SK,sk;q=0.9"),
        *("bookshelf_items_of_the_reader", "live_stream_of_the_conference", "test_that_it_works_as_it_should"),
        *("key-0123456789", "key-value-store-for-the-configuration", "monkey-0123456789abcdef0123456789abcdef"),
        *("pat.example.com", "/path/to/file", "path.join(a, b)", "re_export_of_the_module_that_is_gone"),
        *("us-east-1", "eu-central-1-us2", "0.1.0-us1", "SG.12", "x.s.OrdersService.find", "this.s.value"),
        *("sha256~short", "docker.io/x@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        *(
            "token-bucket:limit",
            "access-production-logs",
            "oauth:google",
            "pk_live_of_stripe",
            "sdk-2.1.0",
            "api-gateway",
        ),
        *("4b1d0000-e29b-41d4-a716-446655440000", "A" * 200, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==", "1000.5"),
        *(
            "checkout-7f9c6d5b8-x2x9q",
            "com.example.cio.Reader",
            "SKU12345678",
            "EAAA",
            "KEY_OF_THE_MAP",
            "secret_of_success",
        ),
        *("pk_live_" + made("a24", 1), "pk_test_51" + made("a60", 1), "x pk_prod_" + made("a30", 1)),
        *("cs_live_" + made("a58", 1), "my_test_ParseHTTP2FrameHeadersAgain", "load_test_of_the_payment_service_2024"),
        *("cache_key_" + made("h64", 1), "lookup:key_" + made("h64", 1), "shelf_" + made("l34", 1)),
        *("shelfhf_ThisIsALongNameOfSomethingElse", "task_" + made("a30", 1), "disk_" + made("a30", 1)),
        *("permission:a.b.c", "perm:read.write.execute", "build_prod_some-branch-name-2024-of-alice"),
        *("12:34:56:AA", "10.0.0.1:AA", "/v1/1732550501123456789", "MTIzNDU2Nzg5MDEyMzQ1Njc4", "dapi", "shp_123"),
    ]
}
