"""Keys in the form that a provider gives them: prefix, length, alphabet, and checksum where there is one."""

from __future__ import annotations

from random import Random

from tests.support.planting.forms import Kind, Make, Secret, b64, compact, form, mixed, one_of, url64, whole, with_crc

_HS = "hooks.sl" + "ack.com"

# name: forms. `<w20>` is filled in; see forms.py.
_FORMS: dict[str, tuple[str, ...]] = {
    "openai": ("sk-<a20>T3BlbkFJ<a20>", "sk-<a48>"),
    "openai project": (
        "sk-proj-<w74>T3BlbkFJ<w74>",
        "sk-proj-<w58>T3BlbkFJ<w58>",
        "sk-proj-<a20>T3BlbkFJ<a20>",
    ),
    "openai service": ("sk-svcacct-<w74>T3BlbkFJ<w74>", "sk-admin-<w58>T3BlbkFJ<w58>"),
    "anthropic": ("sk-ant-api03-<w93>AA", "sk-ant-admin01-<w93>AA", "sk-ant-oat01-<w93>AA"),
    "openrouter": ("sk-or-v1-<h64>",),
    "groq": ("gsk_<a52>",),
    "xai": ("xai-<a80>",),
    "perplexity": ("pplx-<a48>",),
    "replicate": ("r8_<a37>",),
    "hugging face": ("hf_<A34>", "api_org_<A34>"),
    "langsmith": ("lsv2_pt_<h32>_<h10>", "lsv2_sk_<h32>_<h10>"),
    "langfuse": ("sk-lf-<h8>-<h4>-4<h3>-a<h3>-<h12>",),
    "pinecone": ("pcsk_<a6>_<a63>",),
    "elevenlabs": ("sk_<h48>",),
    "gitlab": ("glpat-<w20>", "glpat-<w27>.01.<l9>"),
    "gitlab others": (
        "gldt-<w20>",
        "glrt-<w20>",
        "glrt-t1_<w20>",
        "glcbt-<a2>_<w20>",
        "glptt-<h40>",
        "glft-<w20>",
        "glimt-<w25>",
        "glagent-<w50>",
        "glsoat-<w20>",
        "gloas-<w64>",
        "GR1348941<w20>",
    ),
    "github fine-grained": ("github_pat_<a22>_<a59>",),
    "pypi": ("pypi-AgEIcHlwaS5vcmc<w120-170>", "pypi-AgENdGVzdC5weXBpLm9yZw<w120>"),
    "rubygems": ("rubygems_<h48>",),
    "nuget": ("oy2<z43>",),
    "clojars": ("CLOJARS_<l60>",),
    "docker": ("dckr_pat_<w27>", "dckr_oat_<w32>"),
    "digitalocean": ("dop_v1_<h64>", "doo_v1_<h64>", "dor_v1_<h64>"),
    "heroku": ("HRKU-AA<w58>",),
    "vault": ("hvs.<w90-100>", "hvb.<w140-200>", "hvr.<w90-100>"),
    "terraform cloud": ("<a14>.atlasv1.<w60-67>",),
    "pulumi": ("pul-<h40>",),
    "doppler": ("dp.pt.<a43>", "dp.st.prd.<a43>", "dp.sa.<a43>", "dp.scim.<a43>"),
    "infisical": ("st.<h24>.<h32>.<h32>",),
    "sendgrid": ("SG.<w22>.<w43>",),
    "mailgun": ("key-<h32>", "<h32>-<h8>-<h8>"),
    "mailchimp": ("<h32>-us<d2>",),
    "brevo": ("xkeysib-<h64>-<a16>", "xsmtpsib-<h64>-<a16>"),
    "twilio": ("SK<h32>",),
    "shopify": ("shpat_<h32>", "shpca_<h32>", "shppa_<h32>", "shpss_<h32>"),
    "square": ("sq0atp-<w22>", "sq0csp-<w43>", "EAAA<w60>"),
    "stripe": ("sk_live_<a24>", "sk_test_<a99>", "rk_live_<a24>", "rk_live_<a99>"),
    "stripe webhook": ("whsec_<a32>", "whsec_<b40>"),
    "braintree": ("access_token$production$<l16>$<h32>",),
    "razorpay": ("rzp_live_<a14>",),
    "flutterwave": ("FLWSECK-<h32>-X", "FLWSECK_TEST-<h32>-X"),
    "paystack": ("sk_live_<h40>",),
    "plaid": ("access-production-<h8>-<h4>-4<h3>-a<h3>-<h12>",),
    "easypost": ("EZAK<a54>", "EZTK<a54>"),
    "shippo": ("shippo_live_<h40>",),
    "duffel": ("duffel_live_<w43>",),
    "new relic": ("NRBR-<h19>", "NRAK-<u27>", "NRII-<w32>", "<h32>FFFFNRAL", "eu01xx<h26>FFFFNRAL", "NRJS-<h19>"),
    "grafana": ("glsa_<a32>_<h8>",),
    "dynatrace": ("dt0c01.<u24>.<u64>",),
    "sentry": ("sntryu_<h64>",),
    "honeycomb": ("hcaik_01<l24><l32>",),
    "launchdarkly": ("sdk-<h8>-<h4>-4<h3>-a<h3>-<h12>", "api-<h8>-<h4>-4<h3>-a<h3>-<h12>"),
    "posthog": ("phx_<a43>",),
    "sonar": ("squ_<h40>", "sqp_<h40>", "sqa_<h40>"),
    "sourcegraph": ("sgp_<h16>_<h40>", "sgp_local_<h40>"),
    "snyk": ("snyk_uat.<h8>.<w60>",),
    "linear": ("lin_api_<a40>", "lin_oauth_<h64>"),
    "notion": ("ntn_<d11><a35>", "secret_<a43>"),
    "figma": ("figd_<w40>",),
    "airtable": ("pat<a14>.<h64>",),
    "asana": ("2/<d16>/<d16>:<h32>", "1/<d16>:<h32>"),
    "atlassian": ("ATATT3xFfGF0<w176>=<H8>", "ATCTT3xFfGN0<w176>=<H8>"),
    "bitbucket": ("ATBB<a24><H8>",),
    "postman": ("PMAK-<h24>-<h34>",),
    "contentful": ("CFPAT-<w43>",),
    "typeform": ("tfp_<w44>_<a14>",),
    "hubspot": ("pat-na1-<h8>-<h4>-4<h3>-a<h3>-<h12>", "pat-eu1-<h8>-<h4>-4<h3>-a<h3>-<h12>"),
    "frame.io": ("fio-u-<w64>",),
    "readme": ("rdme_<l70>",),
    "databricks": ("dapi<h32>", "dapi<h32>-2"),
    "planetscale": ("pscale_tkn_<w43>", "pscale_pw_<w43>", "pscale_oauth_<w43>"),
    "supabase": ("sbp_<h40>", "sb_secret_<w22>_<w8>"),
    "clickhouse": ("4b1d<a38>",),
    "fly.io": ("fo1_<w43>", "FlyV1 fm2_<b120>"),
    "netlify": ("nfp_<a36>",),
    "vercel": ("vcp_<a56>", "vci_<a56>", "vca_<a56>", "vcr_<a56>", "vck_<a56>"),
    "cloudflare origin": ("v1.0-<h24>-<h146>",),
    "tailscale": ("tskey-auth-<a11>CNTRL-<a32>", "tskey-api-<a11>CNTRL-<a32>"),
    "openshift": ("sha256~<w43>",),
    "prefect": ("pnu_<a36>",),
    "buildkite": ("bkua_<h40>",),
    "circleci": ("CCIPAT_<a22>_<h40>",),
    "octopus": ("API-<u26>",),
    "artifactory": ("AKCp<a69>", "cmVmdGtu<a56>"),
    "infracost": ("ico-<a32>",),
    "1password": ("A3-<u6>-<u11>-<u5>-<u5>-<u5>",),
    "alibaba": ("LTAI<a20>",),
    "tencent": ("AKID<a32>",),
    "yandex": ("AQVN<w36>",),
    "adobe": ("p8e-<l32>",),
    "dropbox": ("sl.B<w134>", "sl.u.<w160>"),
    "facebook": ("EAAC<a120-160>",),
    "slack bot": ("xoxb-<d12>-<d13>-<a24>",),
    "slack user": ("xoxp-<d12>-<d12>-<d13>-<h32>",),
    "slack app": ("xapp-1-A<u10>-<d13>-<h64>",),
    "slack others": (
        "xoxe.xoxp-1-<u163>",
        "xoxe-1-<u146>",
        "xoxs-<d12>-<d12>-<d12>-<h10>",
        "xoxc-<d12>-<d12>-<d13>-<h64>",
    ),
    "telegram": ("<d10>:AA<w33>", "<d9>:AA<w33>"),
    "google api key": ("AIza<w35>", "AIzaSy<w33>"),
    "google oauth": ("GOCSPX-<w28>",),
    "google access token": ("ya29.a0<w160-200>", "ya29.c.<w120>"),
    "google refresh token": ("1//0<w100>",),
    "aws access key id": ("AKIA<m16>", "ASIA<m16>"),
    "aws bedrock": ("ABSK<b128>",),
    "azure client secret": ("<a3>8Q~<w34>", "<w3>7Q~<w31>"),
    "amazon mws": ("amzn.mws.<h8>-<h4>-4<h3>-a<h3>-<h12>",),
    "weights and biases": ("wandb_v1_<w80>",),
    "azure devops": ("<l52>JQQJ99<u26>",),
    "openvsx": ("ovsxp_<h8>-<h4>-4<h3>-a<h3>-<h12>",),
    "cloudflare token": ("cfut_<a40><h8>", "cfat_<a40><h8>", "cfk_<a40><h8>"),
    "nvidia": ("nvapi-<w64>",),
    "apify": ("apify_api_<a36>",),
    "adafruit": ("aio_<a28>",),
    "salesforce": ("00D<a12>!<a96>",),
    "zoho": ("1000.<h32>.<h32>",),
    "stripe payment": ("pi_<a24>_secret_<a25>", "seti_<a24>_secret_<a25>"),
    "pagarme": ("ak_live_<a30>",),
    "rootly": ("rootly_<h64>",),
    "scalingo": ("tk-us-<w48>",),
    "jetbrains": ("perm:<b20>.<b12>.<a30>", "perm-<b18>=.<b8>.<a30>"),
    "dbt": ("dbtc_<w48>", "dbtu_<w48>"),
    "nylas": ("nyk_v0_<a64>",),
    "klaviyo": ("pk_<h34>",),
    "woocommerce": ("ck_<h40>", "cs_<h40>"),
    "mollie": ("live_<a30>", "test_<a30>"),
    "settlemint": ("sm_aat_<a16>", "sm_pat_<a16>", "sm_sat_<a16>"),
    "polar": ("polar_oat_<a40>", "polar_pat_<a40>"),
    "cursor": ("crsr_<h64>", "key_<h64>"),
    "inngest": ("signkey-prod-<h64>",),
    "bitwarden": ("0.<h8>-<h4>-4<h3>-a<h3>-<h12>.<a30>:<b22>==",),
    "dashlane": ("dls_<u16>_<a40>",),
    "telnyx": ("KEY0<H31>_<a22>",),
    "zuplo": ("zpka_<h32>_<h8>",),
    "secret keys of many": ("sk_<a43>", "sk_prod_<a64>", "sk_dev_<a64>", "sk_org_live_<a60>"),
    "keys with an environment": ("xnd_production_<a60>", "klarna_live_api_<a44>", "tr_prod_<a24>", "pdl_sandbox_<a40>"),
    "azure iot": ("<b33>AIoT<b5>E=",),
    "maxmind": ("<a6>_<a29>_mmk",),
}
# The kinds whose form alone tells nothing certain: they come with the provider's name beside, as in its own variables.
_BY_NAME: dict[str, tuple[str, tuple[str, ...]]] = {
    "aws secret key": ("<b40>", ("aws secret access key", "secret access key", "aws secret key")),
    "datadog": ("<h32>", ("dd api key", "datadog api key", "dd-api-key")),
    "datadog application": ("<h40>", ("dd application key", "dd app key", "datadog app key")),
    "twilio auth": ("<h32>", ("twilio auth token", "auth token")),
    "okta": ("00<w40>", ("okta token", "okta api token")),
    "cloudflare": ("<w40>", ("cloudflare api token", "cf api token")),
    "cloudflare global": ("<h37>", ("cloudflare api key", "x auth key")),
    "algolia": ("<h32>", ("algolia admin key", "algolia api key", "x algolia api key")),
    "cohere": ("<a40>", ("cohere api key", "co api key")),
    "mistral": ("<a32>", ("mistral api key",)),
    "azure openai": ("<h32>", ("azure openai api key", "ocp apim subscription key", "azure openai key")),
    "azure functions": ("<w52>==", ("x functions key", "azure function key")),
    "honeycomb team": ("<a22>", ("x honeycomb team",)),
    "pagerduty": ("u+<w18>", ("pagerduty token", "pagerduty api key")),
    "heroku (uuid)": ("<h8>-<h4>-4<h3>-a<h3>-<h12>", ("heroku api key",)),
    "opsgenie": ("<h8>-<h4>-4<h3>-a<h3>-<h12>", ("opsgenie api key",)),
    "confluent": ("<b64>", ("confluent cloud api secret", "sasl password")),
    "fastly": ("<w32>", ("fastly api token", "fastly key")),
    "storage key": ("<b86>==", ("storage key", "azure storage key", "account key", "azure storage account key")),
    "lob": ("live_<h35>", ("lob api key",)),
    "messagebird": ("live_<a25>", ("messagebird api key", "messagebird access key")),
    "new relic license": ("<h40>", ("new relic license key",)),
    "deepseek": ("sk-<h32>", ("deepseek api key",)),
    "together": ("<h64>", ("together api key",)),
    "security token": ("FwoGZXIvYXdzE<b200>", ("aws session token", "x amz security token")),
    "rollbar": ("<h32>", ("rollbar access token",)),
    "codecov": ("<h8>-<h4>-4<h3>-a<h3>-<h12>", ("codecov token",)),
    "zendesk": ("<a40>", ("zendesk api token",)),
    "mapbox": ("sk.eyJ<a57>.<w22>", ("mapbox access token",)),
    "sumo logic": ("<a64>", ("sumo access key", "sumologic access key")),
    "some key": ("<a40>", ("encryption key", "signing key", "master key", "license key", "nextauth key")),
}


def _github(random: Random) -> Secret:
    return with_crc(random.choice(("ghp_", "gho_", "ghu_", "ghs_", "ghr_")))(random)


def _discord(random: Random) -> Secret:
    return whole(f"{url64(mixed('<d18>x', random)[:18].encode())}.{mixed('G<a5>', random)}.{mixed('<w38>', random)}")


def _grafana_cloud(random: Random) -> Secret:
    return whole("glc_" + b64(compact({"o": "10000", "n": "st-1", "k": mixed("<a24>", random), "m": {"r": "us"}})))


def _grafana_old(random: Random) -> Secret:
    return whole(b64(compact({"k": mixed("<a32>", random), "n": "grafana", "id": 1})))


def _sentry_org(random: Random) -> Secret:
    claims = {"iat": 1700000000, "url": "https://sentry.io", "region_url": "https://us.sentry.io", "org": "acme"}
    return whole(f"sntrys_{b64(compact(claims))}_{mixed('<b43>', random)}")


def _onepassword_service(random: Random) -> Secret:
    return whole("ops_" + url64(compact({"email": "x@1passwordserviceaccounts.com", "muk": mixed("<w180>", random)})))


def _age(random: Random) -> Secret:
    return whole("AGE-SECRET-KEY-1" + "".join(random.choices("QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L", k=58)))


def _azure_storage(random: Random) -> Secret:
    """With the signature of Azure inside: provider at 76, checksum behind it."""
    return whole(mixed("<b76>+ASt<b5>A==", random))


def _azure_eventhub(random: Random) -> Secret:
    return whole(mixed("<b33>+AEh<b5>A=", random))


def _aws_session(random: Random) -> Secret:
    return whole("IQoJb3JpZ2lu" + mixed("X2VjE<b300>", random))


def _twitter(random: Random) -> Secret:
    first, second = "A" * 22 + mixed("<a30>", random), mixed("<a50>", random)
    return Secret(f"{first}%3D{second}", (first[22:], second))


def _slack_webhook(random: Random) -> Secret:
    path = mixed("T<u10>/B<u10>/<a24>", random)
    return Secret(f"https://{_HS}/services/{path}", (path.rpartition("/")[2],))


_MADE: dict[str, Make] = {
    "github": _github,
    "npm": with_crc("npm_"),
    "discord bot": _discord,
    "grafana cloud": _grafana_cloud,
    "grafana key": _grafana_old,
    "sentry organization": _sentry_org,
    "1password service": _onepassword_service,
    "age": _age,
    "azure storage": _azure_storage,
    "azure event hub": _azure_eventhub,
    "aws session token": _aws_session,
    "twitter bearer": _twitter,
    "slack webhook": _slack_webhook,
}


def kinds() -> list[Kind]:
    found = [Kind(name, one_of(*forms)) for name, forms in _FORMS.items()]
    found += [Kind(name, make) for name, make in _MADE.items()]
    found += [Kind(name, form(pattern), names, alone=False) for name, (pattern, names) in _BY_NAME.items()]
    return found
