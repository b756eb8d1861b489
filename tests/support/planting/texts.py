"""Texts that hold a secret at a place that their syntax gives: command lines, connection URLs, headers, statements."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from tests.support.planting.forms import Kind, Make, Secret, b64, filled, form, mixed
from tests.support.planting.personal import social_security_number


class _Texts(NamedTuple):
    keys: tuple[str, ...]
    value: str
    """The form of `{}`; `raw`: with signs that ought to be escaped; `ssn`: such a number."""
    templates: tuple[str, ...]


_COMMAND = ("process.command_line", "container.command_line", "message", "exception.message")
_HOOK = ("url.full", "http.url", "message")
_CONNECTION = ("db.connection_string.text", "message", "exception.message")
_STORE = ("db.query.text", "db.statement")

_TEXTS: dict[str, _Texts] = {
    "curl -u": _Texts(
        _COMMAND,
        "<a12>",
        (
            "curl -u admin:{} https://api.acme.io/v1/orders",
            "curl -sS -u 'deploy:{}' -X POST https://ci.acme.io/build",
            "curl --user svc:{} ftp://files.acme.io/a.csv",
            "curl -uadmin:{} http://localhost:9200/_cat/indices",
            "curl -x http://proxy:3128 -U corp:{} https://acme.io",
            "wget --user=bob --password={} https://acme.io/a.tgz",
            "http -a admin:{} https://api.acme.io/v1",
        ),
    ),
    "mysql -p": _Texts(
        _COMMAND,
        "<a12>",
        (
            "mysql -u root -p{} shop",
            "mysqldump -h db1 -uroot -p{} --single-transaction shop",
            "mysqladmin -uroot -p'{}' status",
            "mariadb -h 10.0.0.4 -p{} -e 'SELECT 1'",
        ),
    ),
    "options of one letter": _Texts(
        _COMMAND,
        "<a12>",
        (
            "sshpass -p {} ssh deploy@10.0.0.7 uptime",
            "sshpass -p{} scp a.txt deploy@host:/tmp",
            "redis-cli -h cache -a {} PING",
            "redis-cli -u redis://:{}@cache:6379 INFO",
            "docker login -u acme -p {} registry.acme.io",
            "sqlcmd -S db1 -U sa -P {} -Q 'SELECT 1'",
            "bcp shop.dbo.t out t.csv -S db1 -U sa -P {}",
            "mongosh -u admin -p {} --authenticationDatabase admin",
            "ldapsearch -x -D cn=admin,dc=acme -w {} -b dc=acme",
            "smbclient //nas/share -U bob%{}",
            "htpasswd -b /etc/nginx/.htpasswd bob {}",
            "zip -P {} out.zip a.txt",
            "7z x -p{} backup.7z",
            "openssl enc -aes-256-cbc -k {} -in a -out b",
            "openssl rsa -in key.pem -passin pass:{}",
            "keytool -list -keystore a.jks -storepass {}",
            "az login --service-principal -u app -p {} --tenant t",
            "mosquitto_pub -h mq -u dev -P {} -t a -m b",
            "ipmitool -H 10.0.0.9 -U ADMIN -P {} power status",
            "rabbitmqctl add_user shop {}",
        ),
    ),
    "places on command lines": _Texts(
        _COMMAND,
        "<a14>",
        (
            "docker login -u=ci -p={} registry.acme.io",
            "crane auth login registry.acme.io -u ci -p {}",
            "skopeo copy --src-creds=ci:{} docker://a docker://b",
            "podman pull --creds ci:{} registry.acme.io/shop",
            "etcdctl --user root:{} get a",
            "ab -n 10 -A bob:{} http://10.0.0.4/",
            "beeline -u jdbc:hive2://db1 -n app -p {}",
            "mysqladmin -u root password {}",
            "net use Z: \\\\nas\\share {} /user:bob",
            "security add-generic-password -a bob -s app -w {}",
            "schtasks /create /ru bob /rp {} /tn nightly",
            "db2 connect to shop user bob using {}",
            "nmcli dev wifi connect office password {}",
            "wpa_passphrase office {}",
            "cf auth bob {}",
            "curl --pass {} --key k.pem https://api.acme.io",
            "ConvertTo-SecureString '{}' -AsPlainText -Force",
        ),
    ),
    "long options": _Texts(
        _COMMAND,
        "<a20>",
        (
            "app serve --password {} --port 8080",
            "app serve --password={} --port 8080",
            "pg_dump --dbname=shop --db-pass {}",
            "az storage blob list --account-name acme --account-key {}",
            "deploy --token {} --env prod",
            "helm upgrade shop ./chart --set db.password={}",
            "terraform apply -var db_password={}",
            "docker run -e DB_PASSWORD={} -p 80:80 acme/shop:1.4",
            "java -Dspring.datasource.password={} -jar shop.jar",
            "java -Djavax.net.ssl.keyStorePassword={} -jar shop.jar",
            "consul kv get --http-token={} a",
            "vault login -method=userpass username=bob password={}",
            "gh auth login --with-token {}",
            "npm publish --otp 482913 --//registry.npmjs.org/:_authToken={}",
            "psql 'host=db1 user=shop password={} dbname=shop'",
            "PGPASSWORD={} psql -h db1 -U shop",
            "MYSQL_PWD={} mysql -u root shop",
            "env REDISCLI_AUTH={} redis-cli PING",
        ),
    ),
    "url credentials": _Texts(
        _CONNECTION,
        "<a14>",
        (
            "postgresql://shop:{}@db1:5432/shop",
            "mysql://root:{}@10.0.0.4/shop?charset=utf8",
            "mongodb+srv://app:{}@cluster0.ab1cd.mongodb.net/test",
            "redis://:{}@cache:6379/0",
            "amqp://guest:{}@mq:5672/%2f",
            "https://bob:{}@git.acme.io/shop.git",
            "nats://{}@nats1:4222",
            "smtp://mailer:{}@smtp.acme.io:587",
            "jdbc:postgresql://shop:{}@db1/shop",
            "sftp://deploy:{}@files.acme.io/in",
            "ldap://cn=admin:{}@ldap.acme.io",
            "socks5://corp:{}@proxy:1080",
        ),
    ),
    "damaged url credentials": _Texts(
        _CONNECTION,
        "<a14>",
        (
            "https:/bob:{}@git.acme.io/shop.git",
            "https//bob:{}@git.acme.io/shop.git",
            "https;//bob%40acme.io:{}@git.acme.io/shop.git",
            "https:///bob:{}@git.acme.io/shop.git",
            "postgres:/shop:{}@db1:5432/shop",
            "redis: //default:{}@cache:6379/0",
        ),
    ),
    "url credentials with raw signs": _Texts(
        _CONNECTION,
        "raw",
        (
            "postgresql://shop:{}@db1:5432/shop",
            "mysql://root:{}@10.0.0.4/shop",
            "mongodb://app:{}@mongo1:27017,mongo2:27017/shop?replicaSet=rs0",
            "redis://default:{}@cache:6379/0",
            "amqp://guest:{}@mq:5672/vhost",
        ),
    ),
    "jdbc and odbc": _Texts(
        _CONNECTION,
        "<a14>",
        (
            "jdbc:oracle:thin:shop/{}@//db1:1521/ORCL",
            "jdbc:oracle:thin:shop/{}@db1:1521:ORCL",
            "jdbc:sqlserver://db1:1433;databaseName=shop;user=sa;password={};encrypt=true",
            "jdbc:mysql://db1/shop?user=root&password={}",
            "jdbc:postgresql://db1/shop?user=shop&password={}&ssl=true",
            "Server=db1;Database=shop;User Id=sa;Password={};",
            "Data Source=db1;Initial Catalog=shop;UID=sa;PWD={};MultipleActiveResultSets=true",
            "DRIVER={{ODBC Driver 18}};SERVER=db1;UID=sa;PWD={}",
            "sqlplus shop/{}@ORCL",
            "sqlplus -s shop/{}@//db1:1521/ORCL @report.sql",
            "app:{}@/shop?parseTime=true",
            "shop:{}@tcp(db1:3306)/shop",
            "host=db1 port=5432 dbname=shop user=shop password={} sslmode=require",
        ),
    ),
    "azure connection string": _Texts(
        _CONNECTION,
        "<b86>==",
        (
            "DefaultEndpointsProtocol=https;AccountName=acme;AccountKey={};EndpointSuffix=core.windows.net",
            "AccountEndpoint=https://acme.documents.azure.com:443/;AccountKey={};",
        ),
    ),
    "azure shared access": _Texts(
        _CONNECTION,
        "<b43>=",
        (
            "Endpoint=sb://acme.servicebus.windows.net/;SharedAccessKeyName=Root;SharedAccessKey={}",
            "HostName=acme.azure-devices.net;DeviceId=d1;SharedAccessKey={}",
            "Endpoint=https://acme.azconfig.io;Id=ab-cd;Secret={}",
            "Endpoint=sb://acme.servicebus.windows.net/;SharedAccessSignature=SharedAccessSignature sr=a&sig={}&se=1",
        ),
    ),
    "signed url": _Texts(
        _HOOK,
        "<h64>",
        (
            "https://acme.s3.amazonaws.com/a.pdf?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20260102T000000Z&X-Amz-Signature={}",
            "https://storage.googleapis.com/acme/a.pdf?X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Signature={}",
            "https://acme.blob.core.windows.net/c/a.pdf?sv=2023-11-03&sp=r&se=2027-01-01&sig={}",
            "https://cdn.acme.io/v/a.mp4?Expires=1767225600&Signature={}&Key-Pair-Id=K2",
        ),
    ),
    "telegram path": _Texts(
        _HOOK,
        "<d10>:AA<w33>",
        (
            "https://api.telegram.org/bot{}/sendMessage",
            "POST https://api.telegram.org/bot{}/getUpdates",
            "https://api.telegram.org/file/bot{}/photos/a.jpg",
        ),
    ),
    "discord webhook": _Texts(
        _HOOK,
        "<w68>",
        (
            "https://discord.com/api/webhooks/112233445566778899/{}",
            "https://discordapp.com/api/v10/webhooks/112233445566778899/{}/messages",
        ),
    ),
    "teams webhook": _Texts(
        _HOOK,
        "<h32>",
        (
            "https://acme.webhook.office.com/webhookb2/11111111-2222-4333-a444-555555555555@66666666-7777-4888-a999-000000000000"
            "/IncomingWebhook/{}/aaaaaaaa-bbbb-4ccc-addd-eeeeeeeeeeee",
        ),
    ),
    "other webhooks": _Texts(
        _HOOK,
        "<w43>",
        (
            "https://hooks.zapier.com/hooks/catch/123456/{}/",
            "https://chat.googleapis.com/v1/spaces/AAAA/messages?key=k&token={}",
            "https://hook.eu1.make.com/{}",
            "https://maker.ifttt.com/trigger/door/with/key/{}",
            "https://open.feishu.cn/open-apis/bot/v2/hook/{}",
            "https://outlook.office.com/webhook/a/IncomingWebhook/{}",
            "https://chat.acme.io/hooks/{}",
        ),
    ),
    "links with a token": _Texts(
        ("url.full", "url.path", "http.target", "message"),
        "<w43>",
        (
            "https://shop.acme.io/reset-password/{}",
            "/password/reset/{}",
            "https://shop.acme.io/invite/{}",
            "/users/confirm/{}",
            "/accounts/verify-email/{}",
            "https://shop.acme.io/magic-link/{}",
            "/auth/activate/{}",
            "/unsubscribe/{}",
            "/api/v1/invitations/{}/accept",
            "https://login.acme.io/recover/{}?lang=de",
        ),
    ),
    "query parameter": _Texts(
        ("url.full", "url.query", "http.url", "message"),
        "<a32>",
        (
            "https://api.acme.io/v1/a?api_key={}&page=2",
            "https://maps.acme.io/json?address=x&key={}",
            "https://api.acme.io/cb?code={}&state=ab",
            "https://api.acme.io/v1/a?access_token={}",
            "https://api.acme.io/v1/a#access_token={}&token_type=bearer",
            "wss://ws.acme.io/socket?token={}",
            "https://api.acme.io/v1/a?user=bob&password={}",
            "https://api.acme.io/login?next=%2Fcb%3Ftoken%3D{}%26a%3D1",
            "page=2&auth_token={}",
        ),
    ),
    "cookies": _Texts(
        ("message", "http.request.headers", "exception.message"),
        "<a32>",
        (
            "Cookie: theme=dark; session={}; lang=de",
            "Set-Cookie: sid={}; Path=/; HttpOnly; Secure",
            "cookie: connect.sid=s%3A{}",
            "Cookie: _gitlab_session={}",
            "Cookie: PHPSESSID={}; a=b",
            "Cookie: next-auth.session-token={}",
            "Set-Cookie: remember_token={}; Max-Age=31536000",
            "Cookie: .AspNetCore.Cookies={}; theme=dark",
        ),
    ),
    "redis": _Texts(
        _STORE,
        "<a20>",
        (
            "SET session:42 {}",
            "AUTH {}",
            "AUTH default {}",
            "SETEX user:7:token 3600 {}",
            "HSET user:7 name bob password {}",
            "HELLO 3 AUTH default {}",
            "CONFIG SET requirepass {}",
            "ACL SETUSER bob on >{} ~* +@all",
            "MSET a 1 b {}",
            "LPUSH queue {}",
            "SADD tokens {}",
            "EVAL 'return 1' 1 k {}",
            "MIGRATE 10.0.0.9 6379 k 0 100 AUTH {}",
            "RENAME session:{} session:old",
            "GETSET session:42 {}",
            "PUBLISH logins {}",
        ),
    ),
    "memcached": _Texts(
        _STORE, "<a20>", ("set session:42 0 900 20\r\n{}", "replace session:42 {}", "add tok 0 0 20 {}", "append k {}")
    ),
    "mongodb": _Texts(
        _STORE,
        "<a20>",
        (
            '{{"find": "users", "filter": {{"token": "{}"}}}}',
            '{{"insert": "users", "documents": [{{"name": "bob", "password": "{}"}}]}}',
            'db.users.find({{password: "{}"}})',
            'db.createUser({{user: "bob", pwd: "{}", roles: []}})',
            '{{"update": "users", "updates": [{{"q": {{"_id": 1}}, "u": {{"$set": {{"apiKey": "{}"}}}}}}]}}',
        ),
    ),
    "elasticsearch": _Texts(
        _STORE,
        "<a20>",
        (
            '{{"query": {{"term": {{"token": "{}"}}}}}}',
            '{{"query": {{"match": {{"session_id": "{}"}}}}}}',
            'POST /_security/user/bob {{"password": "{}"}}',
            "GET /users/_search?q=token:{}",
        ),
    ),
    "ldap": _Texts(
        _STORE,
        "<a20>",
        (
            "BIND cn=admin,dc=acme {}",
            "MODIFY cn=bob,dc=acme userPassword={}",
            "(&(uid=bob)(userPassword={}))",
            "bind cn=bob,dc=acme password {}",
        ),
    ),
    "sql accounts": _Texts(
        _STORE,
        "<a16>",
        (
            "CREATE USER shop PASSWORD '{}'",
            "CREATE USER shop PASSWORD {}",
            "CREATE USER shop IDENTIFIED BY {}",
            "CREATE USER 'shop'@'%' IDENTIFIED BY '{}'",
            "ALTER ROLE shop WITH LOGIN PASSWORD '{}'",
            'ALTER USER sa IDENTIFIED BY "{}" REPLACE "{}"',
            "SET PASSWORD FOR 'shop'@'%' = PASSWORD('{}')",
            "CREATE LOGIN shop WITH PASSWORD = '{}'",
            "GRANT ALL ON *.* TO 'shop'@'%' IDENTIFIED BY '{}'",
            "CREATE SUBSCRIPTION s CONNECTION 'host=db1 password={}' PUBLICATION p",
            "COPY t FROM 's3://b/k' CREDENTIALS 'aws_secret_access_key={}'",
        ),
    ),
    "sql literals": _Texts(
        _STORE,
        "<a20>",
        (
            "SELECT id FROM users WHERE token = '{}'",
            "INSERT INTO sessions (id, tok) VALUES (1, '{}')",
            "UPDATE users SET hash='{}' WHERE id = 7",
            "SELECT * FROM t WHERE a LIKE @p ESCAPE N'\\' AND b = '{}'",
            "SELECT * FROM t WHERE n = 'O\\'Brien' AND b = '{}'",
            "SELECT $tag${}$tag$",
            "EXEC dbo.Login @user = 'bob', @pw = N'{}'",
            "SELECT id FROM users WHERE path = 'C:\\' AND tok = '{}'",
            'SELECT id FROM users WHERE tok = "{}"',
            "CALL login('bob', '{}')",
            "SELECT 1 -- was '{}'",
            "MERGE INTO t USING s ON (t.k = '{}') WHEN MATCHED THEN DELETE",
        ),
    ),
    "cql": _Texts(
        _STORE,
        "<a20>",
        (
            "SELECT * FROM ks.users WHERE token = '{}' ALLOW FILTERING",
            "INSERT INTO ks.sessions (id, token) VALUES (now(), '{}') USING TTL 3600",
            "CREATE ROLE shop WITH PASSWORD = '{}' AND LOGIN = true",
        ),
    ),
    "cypher": _Texts(
        _STORE,
        "<a20>",
        (
            "MATCH (u:User {{token: '{}'}}) RETURN u",
            "CREATE (u:User {{name: 'bob', password: \"{}\"}})",
            "ALTER CURRENT USER SET PASSWORD FROM '{}' TO '{}'",
        ),
    ),
    "aql": _Texts(
        _STORE,
        "<a20>",
        ('FOR u IN users FILTER u.token == "{}" RETURN u', "INSERT {{name: 'bob', password: '{}'}} INTO users"),
    ),
    "gremlin": _Texts(
        _STORE,
        "<a20>",
        ("g.V().has('user','token','{}')", "g.addV('user').property('password', '{}')"),
    ),
    "flux": _Texts(
        _STORE,
        "<a20>",
        ('from(bucket:"b") |> filter(fn: (r) => r.token == "{}")', "SELECT v FROM m WHERE \"token\" = '{}'"),
    ),
    "pgpass and netrc": _Texts(
        ("message", "file.content"),
        "<a16>",
        (
            "db1:5432:shop:shop:{}",
            "machine git.acme.io login bob password {}",
            "machine git.acme.io\n  login bob\n  password {}",
            "//registry.npmjs.org/:_authToken={}",
            "default login anonymous password {}",
        ),
    ),
    "user and password in one": _Texts(
        ("db.user", "url.user_info", "spring.datasource.username"), "<a14>", ("shop:{}", "admin:{}", "sa:{}")
    ),
    "name of a file": _Texts(("message", "url.path"), "ssn", ("w4_{}.pdf", "/upload/{}_2026.tif", "ssn-{}.txt")),
}


# Statements say nothing without the system they are for.
_SYSTEMS = {
    "redis": "redis",
    "memcached": "memcached",
    "mongodb": "mongodb",
    "elasticsearch": "elasticsearch",
    "ldap": "ldap",
    "cql": "cassandra",
    "cypher": "neo4j",
    "aql": "arangodb",
    "gremlin": "gremlin",
    "flux": "influxdb",
    "sql accounts": "postgresql",
}
_SYSTEM_KEYS = dict.fromkeys(("redis", "mongodb", "gremlin"), "db.system")
_BARE = ("user and password in one", "sql literals")


def _raw(random: Random) -> str:
    """A password with signs that a URL should hold escaped only."""
    body = mixed("<a10>", random)
    first, second = random.choice('@/#?"\\<> :&=%'), random.choice('@/#?"\\<>!')
    return body[:4] + first + body[4:7] + second + body[7:]


def _value(form: str, random: Random) -> str:
    if form == "raw":
        return _raw(random)
    if form == "ssn":
        return social_security_number(random)
    return filled(form, random) if form.startswith("<d") else mixed(form, random)


def _make(texts: _Texts) -> Make:
    def make(random: Random) -> Secret:
        template = random.choice(texts.templates)
        value = _value(texts.value, random)
        count = template.replace("{{", "").count("{}")
        return Secret(template.format(*[value] * count), (value,))

    return make


def _basic_pair(random: Random) -> Secret:
    pair = b64(f"admin:{mixed('<a14>', random)}".encode())
    return Secret(
        random.choice((f"auth={pair}", f"registry auth: {pair}", f'{{"auths":{{"r.acme.io":{{"auth":"{pair}"}}}}}}')),
        (pair,),
    )


def kinds() -> list[Kind]:
    found = []
    for name, texts in _TEXTS.items():
        system = _SYSTEMS.get(name)
        beside = ((_SYSTEM_KEYS.get(name, "db.system.name"), system),) if system else ()
        fits = "bare" if system or name in _BARE else "gentle"
        found.append(Kind(name, _make(texts), keys=texts.keys, fits=fits, beside=beside))
    arguments = Kind(
        "element of arguments",
        form("<a16>"),
        keys=("process.command_args", "container.command_args"),
        fits="bare",
        place="list",
    )
    return [*found, arguments, Kind("base64 of user:password", _basic_pair, keys=("message", "config"), fits="gentle")]
