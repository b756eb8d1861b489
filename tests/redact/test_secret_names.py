"""What a name announces, by its words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampler_proxy.redact import secret_names
from sampler_proxy.redact.secret_names import Announces, announced, canonical
from tests.support.redacting import attributes_after, text_after


def words(text: str) -> list[str]:
    return text.split()


PAGE = (Path(__file__).parents[2] / "docs" / "redaction.md").read_text()

CERTAIN = words(
    """
password db.password user[password] user%5Bpassword%5D dbPassword DB_PASSWORD PGPASSWORD mypassword dbpassword
PassWord passWord pass_word password1 password2 new_password old-password password_confirmation passwordConfirm
spring.datasource.password javax.net.ssl.keyStorePassword SPRING_DATASOURCE_PASSWORD REDIS_PASSWORD mysql_root_password
passwd PASSWD user_passwd passphrase pass_phrase ssh-passphrase passcode secret client_secret clientSecret CLIENT-SECRET
app.secret webhook_secret consumerSecret jwt_secret secret_key SECRET_KEY secretKey api_key apiKey apikey X-Api-Key
openai.api_key OPENAI_API_KEY x_api_key http.request.header.x-api-key access_key accessKey AWS_SECRET_ACCESS_KEY
secretAccessKey private_key privateKey encryption_key encryptionkey signing_key subscription_key
ocp_apim_subscription_key Ocp-Apim-Subscription-Key account_key accountKey shared_access_key SharedKey master_key
masterKey functions_key x-functions-key application_key dd-application-key DD_APPLICATION_KEY auth_key hmac_key
secret_key_base jwtKey decryption_key x-honeycomb-team honeycomb.team seed_phrase pwd db_pwd Pwd user.pwd
db.pass smtp_pass db-pass dbPass DB_PASS ansible_become_pass ansible_ssh_pass MYSQL_PASS user.pass userPass
"""
)
AMBIGUOUS = words(
    """
authorization Authorization proxy-authorization http.request.header.authorization credentials db.credentials credential
cookie Cookie set-cookie http.response.header.set-cookie cookies csrf XSRF csrf_token X-XSRF-TOKEN secrets.json.data
password_hash user.password_hash passwords AWS_ACCESS_KEY_ID accessKeyId token access_token id-token
auth.token refreshToken accessTokenV2 token.value apiToken userToken bot_token GITHUB_TOKEN verify_token remember_token
next-auth.session-token page_access_token change_password_token SYNC_GATEWAY_TOKEN x-amz-security-token accesstoken
refreshtoken authtoken session_token reset_token x-vault-token private-token _authToken npm_token
session_id sessionId SESSIONID PHPSESSID JSESSIONID sessid user_session_id jwt user.jwt id-jwt user_jwt signature
webhook.signature x-hub-signature-256 x_hub_signature_256 X-Amz-Signature SharedAccessSignature stripe-signature
saml_response SAMLResponse samlresponse connection_string connectionString db.connection_string code_verifier
codeVerifier client_assertion clientAssertion pass app_pass pw user.pw auth bearer sid
connect.sid secret_id basic_auth requirepass authorization_code REDISCLI_AUTH bindpw rootpw hmac request.hmac
x-goog-iap-jwt-assertion Cf-Access-Jwt-Assertion saml_assertion oauth_verifier oauthVerifier mnemonic recovery_phrase
backupPhrase walletSeed security_answer pwd_hash user.pw_hash http.request.header.auth http.request.header.x-auth
http.request.header.x-authentication rpc.grpc.request.metadata.authentication rpc.grpc.request.metadata.bearer
"""
)
DIGITS = words(
    """
totp user_totp otp user.otp user-otp userOtp login_otp pin user.pin card_pin pinCode cvv card.cvv cvc cvv2
mfa_code mfaCode
2fa_code recovery_code recoveryCode recovery_codes verification_code backup_code sms_code otp_code auth_code device_code
security_code activation_code invite_code invitationCode pairing_code one_time_code oneTimeCode unlock_code
"""
)
KEY_LIKE = words(
    """
STORAGE_KEY storage_key storageKey MY_SERVICE_KEY app.key GITHUB_PAT fernet_key x-team-key license_key twilio_sid
service_ticket invite team_invite
"""
)
MIXED = words("key code keys")
PARAMETERS = words("sas sig session assertion SAMLart SAMLRequest GoogleAccessId")
NOTHING = words(
    """
password.length password_length passwordLength password_changed_at password.changed has_password user.has_password
hasPassword isPasswordSet password_policy password.policy password_expiry password_expires_at password_enabled
password_hint password.strength passwordless passwordless_login password_file requires_password show_password
cookie_consent cookie.consent cookie_count cookie_domain authorization.decision authorization_url authorization.scope
secret.version secret_version secret.name secretName k8s.secret.name aws.secretsmanager.secret.arn secret_path
secret_rotation secretary secretariat secretion secretsmanager.region credential_type credentials_provider
api_key_id api_key_name api_key.count api_key_version access_key_status private_key_path private_key_id
token_count tokenCount token.count token_type tokenType token_expiry token_expires_in token_endpoint token_url token_ttl
token_version tokens max_tokens maxTokens inputTokens gen_ai.usage.input_tokens gen_ai.usage.output_tokens
llm.token_count.prompt tokenize tokenizer tokenized tokenization broken next_token nextToken next_page_token
nextPageToken page_token pageToken continuationToken continuation_token sync_token nextSyncToken cancellationToken
eos_token bos_token pad_token stop_token idempotency_token auth.method auth_method auth.type http.auth.method
oauth.provider author authority authentication.method authorizer session.id session.count session_count
signature_version signature.algorithm code.function.signature method.signature jwt.alg jwt_issuer
compass bypass passed pass_count passenger bypass_count surpass pinned spin shipping mapping pin_count opinion
status_code http.response.status_code error.code error_code country_code zip_code code.function code.namespace
key_count key.type keyboard monkey hotkey partition_key sort_key routing_key messaging.kafka.message.key cache_key
cache.key idempotency_key primary_key foreign_key public_key object_key s3.object_key feature_flag.key lock_key
http.request.method http.route url.path service.name user.id thread.name db.system.name server.address k8s.pod.name
exception.type messaging.message.id process.command process.command_line db.operation.name design signal assassin
outside side inside residue aside session.previous_id enduser.role db.user user.name saml.issuer otpauth_enabled
cookiecutter.template user_passport db_passes authentication app.authentication
assertion_count ticket_id mnemonic_length hmac.algorithm invite_count
"""
)
TABLE = [
    *((name, Announces.CERTAIN) for name in CERTAIN),
    *((name, Announces.AMBIGUOUS) for name in AMBIGUOUS),
    *((name, Announces.DIGITS) for name in DIGITS),
    *((name, Announces.KEY_LIKE) for name in KEY_LIKE),
    *((name, Announces.MIXED_KEY) for name in MIXED),
    *((name, Announces.PARAMETER) for name in PARAMETERS),
    *((name, Announces.NOTHING) for name in NOTHING),
]


@pytest.mark.parametrize(("name", "expected"), TABLE)
def test_names(name: str, expected: Announces) -> None:
    assert announced(name) is expected, canonical(name)


@pytest.mark.parametrize("name", [*CERTAIN, *AMBIGUOUS, *DIGITS])
def test_keys_of_secrets_are_masked_whatever_the_value(name: str) -> None:
    assert attributes_after({"preset": "common"}, {name: "x"}) == {name: "****"}
    assert attributes_after({"preset": "common"}, {name: 5}) == {name: "****"}
    assert attributes_after({"keys": [{"match": "nothing", "action": "mask"}]}, {name: "x"}) == {name: "x"}


@pytest.mark.parametrize("name", [*PARAMETERS, *NOTHING])
def test_other_keys_stay(name: str) -> None:
    assert attributes_after({"preset": "common"}, {name: "x1"}) == {name: "x1"}
    assert attributes_after({"preset": "common"}, {name: 5}) == {name: 5}


KEY = "q7Rt2Zx9Lm4" + "Kp8Vw3Ns6Yb1Dc5"
VALUES = [
    (KEY, True),
    ("9f86d081884c7d65" + "9a2feaa0c55ad015", True),
    ("dGhpcyBpcyBhIHRlc3Qga2V5" + "IG9mIDMyIGJ5dGVz", True),
    ("sk-live-" + KEY, True),
    ("x7k2p9", False),
    ("orders/2024/11/25/cat.jpg", False),
    ("550e8400-e29b-41d4-a716-446655440000", False),
    ("2024-11-25T16:01:41.123456Z", False),
    ("1732550501123456789", False),
    ("com.example.shop.OrderService", False),
    ("order-items-2024-q4-europe", False),
    ("user:12345:profile", False),
    ("/var/lib/app/key1234567.pem", False),
    ("a sentence of words, 12 of them or so", False),
]


@pytest.mark.parametrize("name", [*KEY_LIKE, *MIXED])
@pytest.mark.parametrize(("value", "secret"), VALUES)
def test_some_keys_depend_on_the_value(name: str, value: str, secret: bool) -> None:
    expected = "****" if secret and (name in KEY_LIKE or not value.islower()) else value
    assert attributes_after({"preset": "common"}, {name: value}) == {name: expected}
    assert attributes_after({"preset": "common"}, {"k": {name: [value]}}) == {"k": {name: [expected]}}
    assert text_after({"preset": "common"}, f'{{"{name}": "{value}"}}') == f'{{"{name}": "{expected}"}}'


def test_own_rules_and_exceptions_go_before() -> None:
    settings = {"preset": "common", "keys": [{"match": "*_key", "action": {"keep_last": 4}}], "except": ["code"]}
    assert attributes_after(settings, {"storage_key": KEY, "code": KEY, "key": KEY, "api_key": KEY}) == {
        "storage_key": "****" + KEY[-4:],
        "code": KEY,
        "key": "****",
        "api_key": "****" + KEY[-4:],
    }


@given(st.text(max_size=40))
def test_any_text(name: str) -> None:
    assert isinstance(announced(name), Announces)
    assert announced(name + ".password") >= Announces.AMBIGUOUS


def test_the_manual_names_the_words() -> None:
    for listed in (
        *(secret_names.CERTAIN_WORDS, secret_names.ENDINGS, secret_names.LAST_WORDS, secret_names.CODES),
        *(secret_names.WHOLE_NAMES, secret_names.URL_NAMES, secret_names.OWNERS_OF_PASS),
    ):
        for word in listed:
            assert re.search(rf"`{word}`", PAGE), word
