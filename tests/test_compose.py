"""The Docker files keep their promises, as far as a parser can tell: no Docker engine runs here."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import pytest
from ruamel.yaml import YAML

from hpo.cli import cli
from hpo.spec import load_study_file
from tests.conftest import ROOT

TEXT = (ROOT / "docker-compose.yml").read_text()
# ${NAME}, ${NAME:-default}, ${NAME:?message}
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
COMMANDS = ("submit", "worker", "dashboard")


def with_defaults(text: str) -> str:
    return VARIABLE.sub(lambda match: match[3] if match[2] == "-" else f"<{match[1]}>", text)


def services(text: str = with_defaults(TEXT)) -> dict[str, dict[str, Any]]:
    content = YAML(typ="safe", pure=True).load(text)
    return dict(content["services"])


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def last(name: str) -> str:
    return [rest for word, rest in instructions() if word == name][-1]


def test_the_services_are_those_that_are_documented() -> None:
    assert set(services()) == {"db", *COMMANDS}
    text = (ROOT / "docs" / "docker.md").read_text()
    assert [name for name in services() if f"| `{name}` |" not in text] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_line_is_a_real_one(name: str) -> None:
    service = services()[name]
    program, command, *arguments = [*json.loads(last("ENTRYPOINT")), *service["command"]]
    assert (program, command) == ("hpo", name)
    assert all(isinstance(argument, str) for argument in arguments)
    cli.commands[command].make_context(command, arguments)


def test_a_shown_command_line_is_a_real_one() -> None:
    text = (ROOT / "docs" / "docker.md").read_text()
    shown = re.findall(r"(?:--no-deps worker|:/artifacts keras-hpo) (.+)", text)
    assert len(shown) == 4
    for line in shown:
        command, *arguments = shlex.split(line)
        cli.commands[command].make_context(command, arguments)


def test_the_workers_join_the_study_that_is_submitted() -> None:
    found = services()
    _, file = found["submit"]["command"]
    assert load_study_file(ROOT / file).spec.name == found["worker"]["command"][1]


def test_a_variable_replaces_the_study_everywhere() -> None:
    assert "digits-mlp" not in VARIABLE.sub("other", TEXT)
    assert {match[1] for match in VARIABLE.finditer(TEXT)} >= {"STUDY", "POSTGRES_PASSWORD"}


def test_every_variable_is_documented_with_its_default() -> None:
    rows = (ROOT / "docs" / "docker.md").read_text().splitlines()
    for name, kind, rest in VARIABLE.findall(TEXT):
        row = next((row for row in rows if row.startswith(f"| `{name}` |")), "")
        assert row, f"docs/docker.md does not document {name}"
        assert rest in row
        assert kind in ("-", "?"), f"{name} has neither a default nor a message"


def test_no_variable_hides_in_a_form_that_the_test_does_not_know() -> None:
    assert "$" not in VARIABLE.sub("", TEXT)


def test_no_password_is_written_down() -> None:
    for service in services(TEXT).values():
        for key, value in service["environment"].items():
            if "PASSWORD" in key:
                assert value == "${POSTGRES_PASSWORD:?set POSTGRES_PASSWORD}"
            assert not re.search(r"://[^/@]*:[^/@]*@", value), f"{key} holds a password"


def test_nothing_but_this_machine_reaches_a_port() -> None:
    published = {name: service.get("ports", []) for name, service in services().items()}
    assert {name for name, ports in published.items() if ports} == {"dashboard"}
    for port in published["dashboard"]:
        assert port.startswith("127.0.0.1:")


def test_the_dashboard_can_change_nothing() -> None:
    dashboard = services()["dashboard"]
    assert "--allow-write" not in dashboard["command"]
    assert dashboard["volumes"] == ["artifacts:/artifacts:ro"]
    assert dashboard["command"][-1] == dashboard["ports"][0].rpartition(":")[2]


def test_the_database_is_kept_and_known_to_be_ready() -> None:
    content = YAML(typ="safe", pure=True).load(TEXT)
    db = content["services"]["db"]
    volume, _, folder = db["volumes"][0].partition(":")
    assert volume in content["volumes"]
    assert folder == "/var/lib/postgresql/data"
    assert "pg_isready" in db["healthcheck"]["test"]


def test_workers_and_dashboard_share_the_artifacts() -> None:
    folder = services()["worker"]["environment"]["HPO_ARTIFACTS"]
    assert services()["worker"]["volumes"] == [f"artifacts:{folder}"]
    assert services()["dashboard"]["environment"]["HPO_ARTIFACTS"] == folder


def test_each_waits_for_what_it_needs() -> None:
    found = services()
    assert found["submit"]["depends_on"] == {"db": {"condition": "service_healthy"}}
    for name in ("worker", "dashboard"):
        waits = found[name]["depends_on"]["submit"]
        assert waits == {"condition": "service_completed_successfully"}
    assert found["worker"]["restart"].startswith("on-failure")
    assert "stop_grace_period" in found["worker"]
    # Neither a name nor a port that only one of many workers could have.
    assert not {"container_name", "ports"} & set(found["worker"])


def test_whatever_the_dockerfile_copies_exists_and_is_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    sources = [
        source
        for word, rest in instructions()
        if word in ("COPY", "ADD")
        for source in rest.split()[:-1]
    ]
    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert kept == set(sources)


def test_the_image_does_not_run_as_root() -> None:
    user = last("USER")
    assert user not in ("root", "0")
    words = [word for word, _ in instructions()]
    # After the last step that writes to the image.
    assert words.index("USER") > max(i for i, word in enumerate(words) if word in ("RUN", "COPY"))
    assert any("useradd" in rest and user in rest for word, rest in instructions() if word == "RUN")


def test_the_image_installs_what_the_tests_ran_with() -> None:
    install = next(rest for _, rest in instructions() if "pip install" in rest)
    assert "--constraint constraints.txt" in install
    assert "--compile" in install
    wanted = re.search(r"\.\[([\w,]+)\]", install)
    assert wanted is not None
    extras = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2]
    assert [name for name in wanted[1].split(",") if f"\n{name} = " not in extras] == []
