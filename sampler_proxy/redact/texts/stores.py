"""Knows the languages of stores: which one a statement is in, by the store's name or else by the text itself.

The names are those of OpenTelemetry's conventions (`db.system.name`, and `db.system` before), of OpenTracing's
`db.type`, and of stores that instrumentations name without either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sampler_proxy.redact.lanes import Family
from sampler_proxy.redact.texts import commands, directory, documents, queries, sql, words

_SYSTEMS: Mapping[Family, str] = {
    Family.SQL: (
        "sql other_sql adabas softwareag.adabas cache intersystems_cache cassandra scylla scylladb astra clickhouse"
        " chdb cloudscape cockroachdb coldfusion db2 ibm.db2 derby edb filemaker firebird firstsql h2 h2database"
        " hanadb sap.hana hive hsqldb informix ibm.informix ingres actian.ingres instantdb interbase mariadb maxdb"
        " sap.maxdb mssql mssqlcompact microsoft.sql_server sqlserver azure.sql azure_sql mysql netezza ibm.netezza"
        " oracle oracle.db pervasive pointbase postgresql postgres pgsql progress redshift aws.redshift spanner"
        " gcp.spanner google.spanner bigquery gcp.bigquery google.bigquery snowflake sqlite sybase teradata trino"
        " presto prestodb vertica athena aws.athena databricks spark sparksql duckdb motherduck timescaledb timescale"
        " questdb tidb yugabytedb yugabyte singlestore memsql vitess planetscale libsql turso druid pinot doris"
        " starrocks impala exasol monetdb greenplum voltdb nuodb ignite phoenix kylin dremio drill tdengine oceanbase"
        " polardb aurora ksqldb materialize risingwave crate cratedb alloydb ase access odbc jdbc"
    ),
    Family.COMMANDS: (
        "redis valkey keydb dragonfly dragonflydb garnet kvrocks aws.elasticache elasticache memorydb memcached"
        " memcache etcd tarantool rocksdb leveldb consul riak aerospike"
    ),
    Family.DOCUMENTS: (
        "mongodb mongo documentdb aws.documentdb elasticsearch opensearch aws.opensearch solr couchdb couchbase"
        " dynamodb aws.dynamodb firestore gcp.firestore datastore gcp.datastore cosmosdb azure.cosmosdb ferretdb"
        " rethinkdb meilisearch typesense algolia weaviate qdrant pinecone milvus chroma ravendb"
    ),
    Family.QUERIES: (
        "neo4j memgraph neptune aws.neptune janusgraph arangodb orientdb dgraph tigergraph falkordb graphdb stardog"
        " fuseki influxdb prometheus victoriametrics loki kusto azure.data_explorer azure_data_explorer hbase geode"
        " surrealdb gremlin sparql virtuoso"
    ),
    Family.DIRECTORY: "ldap openldap activedirectory active_directory microsoft.active_directory azure_ad entra",
}
FAMILIES: Mapping[str, Family] = {name: family for family, names in _SYSTEMS.items() for name in names.split()}
"""The languages of stores, by their names in lower case."""

_ROUNDS = 4
"""What is left of a text may read otherwise than all of it: an open quote gone, a comment begins."""


def family_of(system: str) -> Family:
    """Return the language of a store; BY_TEXT for one that is not known."""
    return FAMILIES.get(system.strip().lower(), Family.BY_TEXT)


def obfuscate(family: Family, text: bytes) -> bytes:
    """Return a statement with `?` for its literals; commands and names stay. `?` for one that would become something
    else each time. Idempotent, raises nothing."""
    if not text.strip():
        return text
    obfuscating = _OBFUSCATING[family]
    for _ in range(_ROUNDS):
        shape = obfuscating(text)
        if shape == text:
            return shape
        text = shape
    return words.MASK


def _clear_sql(text: bytes) -> bytes | None:
    """Obfuscate what is SQL, and no language that resembles it; None for all else."""
    if queries.begin(text):
        return None
    shape = sql.obfuscate(text)
    return None if shape == sql.UNREADABLE else shape


def _sql(text: bytes) -> bytes:
    """Obfuscate SQL, or the name of a procedure, or a command that we do not know."""
    shape = _clear_sql(text)
    return _other(text, words.obfuscate) if shape is None else shape


def _documents(text: bytes) -> bytes:
    shape = None if documents.begin(text) else _clear_sql(text)
    return documents.obfuscate(text) if shape is None else shape


def _queries(text: bytes) -> bytes:
    shape = _clear_sql(text)
    return queries.obfuscate(text) if shape is None else shape


def _by_text(text: bytes) -> bytes:
    """Obfuscate a statement whose text alone says what it is. SQL comes first where it is clear: other stores have
    commands that begin with the same words."""
    shape = _clear_sql(text)
    return _other(text, commands.obfuscate) if shape is None else shape


def _other(text: bytes, otherwise: Callable[[bytes], bytes]) -> bytes:
    """Obfuscate a statement in the first of the other languages that it begins like."""
    for begin, known in (
        (queries.begin, queries.obfuscate),
        (documents.begin, documents.obfuscate),
        (directory.begin, directory.obfuscate),
    ):
        if begin(text):
            return known(text)
    return otherwise(text)


_OBFUSCATING: Mapping[Family, Callable[[bytes], bytes]] = {
    Family.SQL: _sql,
    Family.COMMANDS: commands.obfuscate,
    Family.DOCUMENTS: _documents,
    Family.QUERIES: _queries,
    Family.DIRECTORY: directory.obfuscate,
    Family.BY_TEXT: _by_text,
}
