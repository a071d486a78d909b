"""Prometheus' own tool accepts the rules, and rules and dashboards name only metrics that exist."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

ROOT = Path(__file__).parents[3]
RULES = ROOT / "monitoring/prometheus/skerry-rules.yml"
DASHBOARDS = sorted((ROOT / "monitoring/grafana").glob("*.json"))

WITH_A_THERMAL_ZONE = "skerry_temperature_celsius"
"""Its own tests make one up; the machine of this one may have none."""

NAME = re.compile(r"\bskerry_[a-z_]+|\bprocess_[a-z_]+")
RECORDED = re.compile(r"\bskerry:[a-z0-9_:]+")
KIND = re.compile(r'kind="(\w+)"')


def promtool(*arguments: str | Path) -> str:
    found = shutil.which("promtool")
    assert found, "promtool is missing: scripts/debian_packages.py installs the package prometheus"
    run = subprocess.run([found, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def expressions_of(dashboard: Path) -> Iterator[str]:
    document = json.loads(dashboard.read_text())
    for panel in document["panels"]:
        for target in panel["targets"]:
            yield target["expr"]
    for variable in document["templating"]["list"]:
        if variable["type"] == "query":
            yield re.sub(r"label_values\((.*), \w+\)", r"\1", variable["definition"])


def test_the_rules_are_valid_and_fire_when_they_should() -> None:
    rules = len(re.findall(r"^ +- (?:alert|record):", RULES.read_text(), re.MULTILINE))
    assert f"SUCCESS: {rules} rules found" in promtool("check", "rules", RULES)
    promtool("test", "rules", RULES.with_name("skerry-rules-test.yml"))


def test_the_example_of_a_configuration_is_valid(tmp_path: Path) -> None:
    text = RULES.with_name("prometheus.yml").read_text()
    for name in ("skerry-viewer-token", "skerry-fleet-ca.crt"):
        (tmp_path / name).touch()
        text = text.replace(f"/etc/prometheus/{name}", str(tmp_path / name))
    shutil.copy(RULES, tmp_path)
    (tmp_path / "prometheus.yml").write_text(text)
    promtool("check", "config", "--lint=none", tmp_path / "prometheus.yml")


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_the_expressions_of_a_dashboard_are_valid(dashboard: Path, tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expression}
        for number, expression in enumerate(expressions_of(dashboard))
    ]
    assert len(rules) > 10
    # JSON is YAML.
    file = tmp_path / "rules.yml"
    file.write_bytes(msgspec.json.encode({"groups": [{"name": dashboard.stem, "rules": rules}]}))
    promtool("check", "rules", file)


def test_dashboards_have_panels_of_their_own_places() -> None:
    for dashboard in DASHBOARDS:
        panels = json.loads(dashboard.read_text())["panels"]
        places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
        assert len(set(places)) == len(places)
        assert len({panel["id"] for panel in panels}) == len(panels)


def test_every_metric_that_is_named_exists(server_metrics: str, runtime_metrics: str) -> None:
    exported = {*NAME.findall(server_metrics + runtime_metrics), WITH_A_THERMAL_ZONE}
    rules = RULES.read_text()
    recorded = set(re.findall(r"record: (\S+)", rules))
    for text in (rules, *(" ".join(expressions_of(dashboard)) for dashboard in DASHBOARDS)):
        named = set(NAME.findall(text))
        assert named - exported == set()
        assert set(RECORDED.findall(text)) - recorded == set()
        for kind in KIND.findall(text):
            assert f'kind="{kind}"' in runtime_metrics


def test_the_metrics_pages_pass_promtools_lint(server_metrics: str, runtime_metrics: str) -> None:
    found = shutil.which("promtool")
    assert found
    for page in (server_metrics, runtime_metrics):
        run = subprocess.run(
            [found, "check", "metrics"], input=page, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stdout + run.stderr
