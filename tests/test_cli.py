"""The commands as processes: output, exit codes, the positions of faults in expressions, and the log."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from sampler_proxy import __version__
from sampler_proxy.cli import main
from sampler_proxy.config.check import check, load_config
from sampler_proxy.config.model import Config
from sampler_proxy.errors import ConfigError

ROOT = Path(__file__).parent.parent
SECRET = "s3cret-value"


def command(*arguments: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sampler_proxy", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={**os.environ, **environ},
    )


def test_version():
    done = command("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"sampler-proxy {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ("validate c.yaml", "No such command 'validate': write sampler-proxy check"),
        ("start", "write sampler-proxy run"),
        ("version", "write sampler-proxy --version"),
        ("frobnicate", "there are check, explain, redact, run, schema"),
        ("--config c.yaml run", "it stands behind the command: sampler-proxy run --config ..."),
        ("-c c.yaml run", "it stands behind the command: sampler-proxy run --config ..."),
        ("--log-level debug run", "it stands behind the command: sampler-proxy run --log-level ..."),
        ("--frobnicate run", "No such option '--frobnicate'"),
        ("run -c c.yaml", "No such option '-c': write --config FILE"),
        ("run c.yaml", "a configuration file is named by --config FILE"),
        ("explain -c c.yaml traces", "write --config FILE"),
        ("check --config c.yaml", "write the name of the file alone"),
        ("schema c.yaml", "unexpected extra argument"),
        ("run --log-level loud", "is not one of 'debug', 'info', 'warning', 'error'"),
    ],
)
def test_a_wrong_command_line_gets_a_hint(arguments, hint):
    done = CliRunner().invoke(main, arguments.split())
    assert done.exit_code == 2
    assert hint in done.output.splitlines()[-1]


def test_levels_may_be_in_upper_case():
    done = command("run", "--log-level", "DEBUG", "--config", "/nowhere")
    assert (done.returncode, done.stderr) == (1, "/nowhere: cannot be read: No such file or directory\n")


def test_check_of_a_sound_file():
    path = str(ROOT / "deploy" / "sampler-proxy.yaml")
    done = command("check", path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{path}: ok\n", "")


def test_of_a_long_line_what_is_near_is_shown(tmp_path):
    file = tmp_path / "long.yaml"
    for before, after in ((0, 5000), (5000, 0), (5000, 5000)):
        match = "{ " + ".a || " * before + "wrong" + " || .a" * after + " }"
        file.write_text(f"rules:\n  - {{name: a, match: '{match}', keep: all}}\n  - {{name: b, keep: 1%}}\n")
        done = command("check", str(file))
        said, line, caret = done.stderr.splitlines()
        assert (done.returncode, len(line) < 200) == (1, True)
        assert said.startswith(f"{file}:2:{25 + 6 * before}: unknown word wrong")
        assert line[caret.index("^") :].startswith("wrong")
        assert line.strip().startswith("...") == (before > 0)
        assert line.endswith("...") == (after > 0)


def test_check_of_several_files(tmp_path):
    bad, odd, good = tmp_path / "bad.yaml", tmp_path / "odd.yaml", tmp_path / "good.yaml"
    bad.write_text("bufer: {}\nbuffer: {max_bytes: 1G}\n")
    odd.write_text("admin: {endpoint: '0.0.0.0:4317', insecure: true}\n")
    good.write_text("")
    missing = tmp_path / "none.yaml"
    done = command("check", *map(str, (bad, good, missing, odd)))
    assert done.returncode == 1
    assert done.stdout == f"{good}: ok\n{odd}: ok\n"
    assert [text.partition(": ")[0] for text in done.stderr.splitlines()] == [
        f"{bad}:1:1",
        f"{bad}:2:21",
        str(missing),
        f"{odd}:1:19",
    ]
    done = command("check", str(good), str(odd))
    assert (done.returncode, done.stdout) == (0, f"{good}: ok\n{odd}: ok\n")


def test_check_of_standard_input(tmp_path):
    done = command("check", "-", stdin="buffer: {max_bytes: 1G}\n")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "-:1:21: not a size: write for example 1GB or 1GiB\n"
    file = tmp_path / "good.yaml"
    file.write_text("")
    done = command("check", str(file), "-", stdin="shutdown_timeout: ${env:T}\n", T="10s")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{file}: ok\n-: ok\n", "")
    done = command("check", "-", "-")
    assert (done.returncode, done.stdout) == (2, "")
    assert "standard input (-) can be read only once" in done.stderr


def test_check_knows_the_name_of_this_machine():
    name = socket.gethostname()
    done = command("check", "-", stdin=f"export: [{{name: a, endpoint: 'http://{name}:4317'}}]\n")
    assert done.returncode == 0
    assert "this is where the proxy itself receives" in done.stderr


def test_redact_reads_several_files(tmp_path):
    rules = tmp_path / "rules.yaml"
    rules.write_text("redact: {preset: common}\n")
    paths = []
    for number in (1, 2):
        attribute = {"key": "password", "value": {"stringValue": SECRET}}
        whole = {"traceId": f"0{number}" * 16, "spanId": "01" * 8, "attributes": [attribute]}
        file = tmp_path / str(number)
        file.write_text(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [whole]}]}]}) + "\n{")
        paths.append(str(file))
    done = command("redact", "--config", str(rules), *paths)
    assert done.returncode == 0
    assert "2 of 2 traces would be changed" in done.stdout
    assert done.stderr.splitlines() == [
        f"{path}:2:2: not JSON, since the file ends within it: 1 byte left out (1 line)" for path in paths
    ]


def test_explain_says_that_a_file_is_empty(tmp_path):
    file = tmp_path / "empty.jsonl"
    file.write_bytes(b"")
    done = command("explain", str(file))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", f"{file}: no traces\n")


def test_check_prints_every_fault_at_once_with_a_caret_under_expressions(tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text(
        """\
bufer: {}
rules:
  - name: a
    match: '{ name = "${env:SECRET}" && }'
    keep: 1
  - name: b
    match: |
      { status = error }
        && { }}
    keep: all
  - {name: c, unless: "{ status = \\"error\\" }", keep: all}
  - {name: d, keep: all}
"""
    )
    done = command("check", str(file), SECRET=SECRET)
    assert (done.returncode, done.stdout) == (1, "")
    assert SECRET not in done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    heads = [index for index, line in enumerate(lines) if line.startswith(f"{file}:")]
    assert [lines[index].split(":")[1:3] for index in heads] == [
        ["1", "1"],
        ["4", "41"],
        ["5", "11"],
        ["9", "15"],
        ["11", "35"],
    ]
    for index, source, marked in (
        (heads[1], '{ name = "${env:SECRET}" && }', "}"),
        (heads[3], "  && { }}", "}"),
        (heads[4], '{ status = "error" }', '"'),
    ):
        assert lines[index + 1] == "    " + source
        assert lines[index + 2].strip() == "^"
        assert lines[index + 1][lines[index + 2].index("^")] == marked


@pytest.mark.parametrize("arguments", [["check"], ["run", "--config"]])
def test_a_file_that_is_not_there(tmp_path, arguments):
    path = str(tmp_path / "none.yaml")
    done = command(*arguments, path)
    assert done.returncode == 1
    assert (done.stdout, done.stderr) == ("", f"{path}: cannot be read: No such file or directory\n")


def test_run_refuses_what_check_refuses(tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text("rules:\n  - {name: a, match: '{ statu = error }', keep: all}\n  - {name: b, keep: 1%}\n")
    checked, run = command("check", str(file)), command("run", "--config", str(file))
    assert run.returncode == checked.returncode == 1
    assert run.stderr == checked.stderr
    assert run.stderr.startswith(f"{file}:2:25: ")


def test_schema_is_json():
    done = command("schema")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["title"] == "sampler-proxy configuration"


def test_a_wrong_command_line_exits_with_2():
    assert command("chekc").returncode == 2
    assert command("check").returncode == 2
    assert command("run", "--log-level", "loud").returncode == 2


def test_a_service_that_cannot_start_says_why_without_traceback():
    code = (
        "import sys, types\n"
        "from sampler_proxy.errors import StartError\n"
        "service = types.ModuleType('sampler_proxy.service')\n"
        "def run(loaded, summary):\n"
        "    assert summary and loaded.config.rules[0].name == 'errors'\n"
        "    raise StartError('port taken')\n"
        "service.run = run\n"
        "import sampler_proxy\n"
        "sys.modules['sampler_proxy.service'] = sampler_proxy.service = service\n"
        "from sampler_proxy.cli import main\n"
        "main(['run'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "port taken\n")


LOGGER = """
import logging, structlog
from sampler_proxy.cli import set_up_logging
set_up_logging("info")
structlog.get_logger().info("ready", grpc="h:1")
structlog.get_logger().debug("unseen")
logging.getLogger("lib").warning("from %s", "outside")
logging.getLogger("lib").info("said", extra={"x": 1})
try:
    payload = "s3cret-value"
    raise KeyError
except KeyError:
    structlog.get_logger().exception("failed")
"""


def test_logs_are_json_lines_off_a_terminal():
    done = subprocess.run([sys.executable, "-c", LOGGER], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "")
    ready, outside, said, failed = (json.loads(line) for line in done.stderr.splitlines())
    assert ready.pop("timestamp").endswith("Z")
    assert ready == {"event": "ready", "grpc": "h:1", "level": "info"}
    assert (outside["event"], outside["level"], outside["logger"]) == ("from outside", "warning", "lib")
    assert said["event"] == "said"
    assert failed["level"] == "error"
    assert "KeyError" in failed["exception"]


def test_logs_are_text_on_a_terminal_and_show_no_local_variables():
    terminal, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", LOGGER.replace('"s3cret-value"', '"s3cret" + "-value"')],
            stdout=subprocess.DEVNULL,
            stderr=theirs,
            timeout=60,
            cwd=ROOT,
            env={**os.environ, "NO_COLOR": "1"},
        )
        written = os.read(terminal, 1 << 16).decode()
    finally:
        os.close(terminal)
        os.close(theirs)
    assert done.returncode == 0
    assert "[info     ] ready" in written
    assert "KeyError" in written
    assert "s3cret-value" not in written


def test_defaults_compile():
    loaded = load_config(Config())
    assert loaded.config == Config()


def test_check_gives_settings_and_compiled_rules(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("rules:\n  - {name: a, match: '{ name = \"${env:N}\" }', keep: all}\n  - {name: b, keep: none}\n")
    loaded = check(str(file), {"N": "x"})
    assert loaded.config.rules[0].match == '{ name = "x" }'
    with pytest.raises(ConfigError, match="N is not set"):
        check(str(file), {})


def test_a_fault_of_an_expression_does_not_quote_what_a_variable_holds(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("rules:\n  - {name: a, match: '{ ${env:SECRET} = 1 }', keep: all}\n  - {name: b, keep: none}\n")
    with pytest.raises(ConfigError) as refused:
        check(str(file), {"SECRET": "s3cret"})
    (fault,) = refused.value.faults
    assert (fault.line, fault.column) == (2, 25)
    assert "s3cret" not in fault.message
    assert fault.message.splitlines()[1:] == ["    { ${env:SECRET} = 1 }", "      ^"]


def test_check_warns_on_stderr_and_succeeds(tmp_path):
    file = tmp_path / "odd.yaml"
    file.write_text(
        """\
rules:
  - {name: a, match: '{ .a && .b || .c }', keep: all}
  - name: b
    match: '{ span.http.satus_code = 500 && .x = "${env:SECRET}" }'
    keep: all
  - {name: c, match: '{ .a && .b || .c }', unless: '{ .d || .e && .${env:SECRET} }', keep: all}
  - {name: all, keep: all}
  - {name: rest, keep: 1%}
"""
    )
    done = command("check", str(file), SECRET=SECRET)
    assert (done.returncode, done.stdout) == (0, f"{file}: ok\n")
    assert SECRET not in done.stderr
    lines = done.stderr.splitlines()
    heads = [line for line in lines if line.startswith(f"{file}:")]
    assert all(re.match(r":\d+:\d+: warning: ", line.removeprefix(str(file))) for line in heads)
    assert [line.removeprefix(str(file)).split(":")[1:3] for line in heads[:3]] == [
        ["2", "34"],
        ["4", "15"],
        ["6", "23"],
    ]
    assert lines[1:3] == ["    { .a && .b || .c }", "               ^"]
    assert heads[-1] == f"{file}:8:5: warning: this rule is never reached: all before it matches every trace"


def test_run_logs_the_warnings_of_check(tmp_path):
    file = tmp_path / "odd.yaml"
    endpoint = "{endpoint: '127.0.0.1:0'}"
    file.write_text(
        f"receive: {{grpc: {endpoint}, http: {endpoint}}}\nadmin: {endpoint}\n"
        "rules: [{name: a, match: '{ .a && .b || .c }', keep: all}, {name: b, keep: all}]\n"
        f"export: [{{name: f, protocol: file, path: {tmp_path / 'out'}}}]\n"
    )
    warned = command("check", str(file)).stderr.rstrip("\n")
    with subprocess.Popen(
        [sys.executable, "-m", "sampler_proxy", "run", "--config", str(file)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as run:
        assert run.stderr is not None
        found = [json.loads(run.stderr.readline())["event"] for _ in range(2)]
        run.terminate()
        run.stderr.read()
    assert found == ["ready", warned]


def test_run_with_a_configuration_from_standard_input(tmp_path):
    """It cannot be read again: SIGHUP says so, and ends nothing."""
    endpoint = "{endpoint: '127.0.0.1:0'}"
    export = f"[{{name: f, protocol: file, path: {tmp_path}/out}}]"
    config = f"receive: {{grpc: {endpoint}, http: {endpoint}}}\nadmin: {endpoint}\nexport: {export}\n"
    with subprocess.Popen(
        [sys.executable, "-m", "sampler_proxy", "run", "--config", "-"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as run:
        assert run.stdin is not None
        assert run.stderr is not None
        run.stdin.write(config)
        run.stdin.close()
        assert json.loads(run.stderr.readline())["export"] == ["f"]
        run.send_signal(signal.SIGHUP)
        assert json.loads(run.stderr.readline())["event"] == "there is no configuration file to reload"
        run.terminate()
        run.stderr.read()
        assert run.wait(60) == 0


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (r'{"a\e]0;x\a\nb.yaml:1:1: ok": 1}', r"unknown key 'a\x1b]0;x\x07\nb.yaml:1:1: ok'"),
        (r'{admin: {}, "a\e": 1, "a\e": 2}', r"duplicate key 'a\x1b'"),
        (r'rules: [{name: x, match: "{ .a = \u202ewrong\e[2J }", keep: all}]', r"{ .a = \u202ewrong\x1b[2J }"),
    ],
)
def test_names_in_a_file_do_not_reach_the_terminal_as_they_are(tmp_path, text, shown):
    file = tmp_path / "evil\x1b[1m\n.yaml"
    file.write_text(text)
    done = command("check", str(file))
    assert (done.returncode, done.stdout) == (1, "")
    assert all(line.isprintable() for line in done.stderr.splitlines())
    assert shown in done.stderr
    assert r"evil\x1b[1m\n.yaml:1:" in done.stderr


def test_the_caret_stands_under_what_follows_an_escaped_character(tmp_path):
    file = tmp_path / "file.yaml"
    file.write_text('rules: [{name: x, match: "{ .a = `\\t\\e` && wrong }", keep: all}, {name: y, keep: none}]')
    _, line, caret = command("check", str(file)).stderr.splitlines()[:3]
    assert line.expandtabs()[caret.expandtabs().index("^") :].startswith("wrong")


def test_a_bound_that_the_machine_cannot_give(tmp_path):
    file = tmp_path / "large.yaml"
    file.write_text(
        "buffer: {decision_memory: 100TiB}\n"
        "receive: {grpc: {endpoint: '127.0.0.1:0'}, http: {endpoint: 'off'}}\nadmin: {endpoint: '127.0.0.1:0'}\n"
        f"export: [{{name: a, protocol: file, path: {tmp_path}/out}}]\n"
    )
    done = command("check", str(file))
    assert (done.returncode, done.stdout) == (0, f"{file}: ok\n")
    assert done.stderr.startswith(f"{file}:1:27: warning: more than the ")
    limited = ["sh", "-c", 'ulimit -v 8000000; exec "$@"', "sh"]
    done = subprocess.run(
        [*limited, sys.executable, "-m", "sampler_proxy", "run", "--config", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    assert done.returncode == 1
    assert "buffer.decision_memory: the system does not give 100TiB: write less" in done.stderr.splitlines()
    assert "Traceback" not in done.stderr


def test_a_start_without_a_file_goes_by_opentelemetry_s_variables():
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "nonsense://h", "OTEL_EXPORTER_OTLP_TIMEOUT": SECRET}
    done = command("run", **variables)
    assert (done.returncode, done.stderr.splitlines()) == (
        1,
        [
            "OTEL_EXPORTER_OTLP_ENDPOINT: write http://host:port/path, or https:// for TLS",
            "OTEL_EXPORTER_OTLP_TIMEOUT: write a whole number of milliseconds, such as 10000",
        ],
    )
    done = command("check", str(ROOT / "deploy" / "sampler-proxy.yaml"), **variables)  # with a file they are not read
    assert done.returncode == 0
