"""What the project promises about itself: locks, package, compose file, commands and gates."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = ["run", "dev"]


def pins(lock):
    """The lines `name==version`, with their markers."""
    return set(re.findall(r"^(\S+==[^\\\n]+?) \\$", (ROOT / f"requirements/{lock}.txt").read_text(), re.MULTILINE))


@pytest.fixture(scope="module")
def compose():
    """The compose file's services, by name."""
    return YAML(typ="safe").load(ROOT / "docker-compose.yml")["services"]


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_names_no_source(lock):
    """Packages are pinned by hash alone, so that they come from wherever the reader's installer looks."""
    text = (ROOT / f"requirements/{lock}.txt").read_text()

    assert [] == re.findall(r".*(?:://|file:|--index|--find-links|@ ).*", text)


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_hashes_every_pin(lock):
    """No package is installed that is not known byte by byte."""
    lines = (ROOT / f"requirements/{lock}.txt").read_text().splitlines()
    bare = [pin for pin, after in zip(lines, [*lines[1:], ""], strict=True) if "==" in pin and "--hash=" not in after]

    assert pins(lock)
    assert [] == bare


def test_lock_of_development_holds_what_runs():
    """Tests run on the very versions that the product is installed with."""
    assert pins("run") <= pins("dev")


def test_lock_covers_every_dependency():
    """A dependency that was added without `make lock` is noticed here, not on a new machine."""
    groups = [PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"].values()]
    groups += [[entry for entry in group if isinstance(entry, str)] for group in PROJECT["dependency-groups"].values()]
    wanted = {canonicalize_name(Requirement(entry).name) for group in groups for entry in group}
    locked = {canonicalize_name(pin.split("==")[0]) for pin in pins("dev")}

    assert set() == wanted - locked - {"rocketmq-outbox"}


def installed_with(extra):
    """Every package that comes along with the project and one of its extras, as their own metadata say."""
    found, wanted = set(), [Requirement(f"rocketmq-outbox[{extra}]")]
    while wanted:
        one = wanted.pop()
        name = canonicalize_name(one.name)
        for needed in map(Requirement, importlib.metadata.requires(name) or ()):
            asked = any(needed.marker.evaluate({"extra": of}) for of in ("", *one.extras)) if needed.marker else True
            if asked and (key := (needed.name, *sorted(needed.extras))) not in found:
                found.add(key)
                wanted.append(needed)
    return {canonicalize_name(name) for name, *_ in found}


def test_extra_for_redis_brings_all_that_its_transport_imports():
    """Celery's transport for Redis needs more than the client, and what development brings along hides that."""
    assert {"redis", "packaging"} <= installed_with("redis")
    assert "redis" not in installed_with("postgres")


def test_compose_file_is_valid():
    """The compose file keeps to the Compose specification's own schema."""
    command = ["-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml"]
    checked = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)

    assert 0 == checked.returncode, checked.stdout + checked.stderr


def test_compose_publishes_on_loopback_alone(compose):
    """No port of the deployment can be reached from another machine."""
    ports = [port for service in compose.values() for port in service.get("ports", [])]

    assert ports
    assert [] == [port for port in ports if not port.startswith("127.0.0.1:")]


def test_compose_waits_for_conditions_that_can_be_met(compose):
    """Who waits for a healthy service waits for one that has a health check."""
    waits = [wait for service in compose.values() for wait in service.get("depends_on", {}).items()]
    healthy = {name for name, wait in waits if wait["condition"] == "service_healthy"}

    assert {"postgres", "rabbitmq", "emulator"} == healthy
    assert all("healthcheck" in compose[name] for name in healthy)


def test_makefile_explains_every_target():
    """`make help` lists every command that the Makefile has."""
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)[1].split())
    helped = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)

    assert phony == set(re.findall(r"^make ([\w-]+) +\S", helped.stdout, re.MULTILINE))
    assert phony == set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))


def test_changelog_begins_with_unreleased():
    """The newest section of the changelog is the one for what is not released yet."""
    sections = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert "[Unreleased]" == sections[0]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A function from a version of the wheel, standard or editable, to the names of the files inside."""

    def build(version):
        builder = WheelBuilder(str(ROOT))
        path = next(builder.build(directory=str(tmp_path_factory.mktemp(version)), versions=[version]))
        return zipfile.ZipFile(path).namelist()

    return build


def test_wheel_holds_migrations_pages_and_types(wheel):
    """What is installed can migrate a database, has its pages, and tells type checkers that it is annotated."""
    names = wheel("standard")

    assert {"outbox/__init__.py", "outbox/py.typed", "outbox/migrations/env.py"} <= set(names)
    assert {"outbox/admin/static/outbox/outbox.css", "outbox/admin/templates/outbox/base.html"} <= set(names)
    assert {"outbox/django/jinja2/outbox/base.html", "outbox/django/templates/outbox/page.html"} <= set(names)
    assert any(re.fullmatch(r"outbox/migrations/versions/\w+\.py", name) for name in names)
    assert [] == [name for name in names if not name.startswith(("outbox/", "rocketmq_outbox-"))]


def test_wheel_when_editable_copies_nothing(wheel):
    """An editable install points at the sources: a copy of the migrations would go stale."""
    copies = [name for name in wheel("editable") if not name.startswith("rocketmq_outbox-")]

    assert ["_rocketmq_outbox.pth"] == copies


def test_version_has_one_source():
    """The version stands in pyproject.toml and nowhere else."""
    import outbox

    assert PROJECT["project"]["version"] == outbox.__version__
    assert PROJECT["project"]["version"] == importlib.metadata.version("rocketmq-outbox")


def test_import_leaves_heavy_packages_out():
    """An application that enqueues pays for no HTTP code, no Celery, no framework and no command line."""
    code = "import sys, outbox; print({'alembic', 'celery', 'click', 'django', 'flask', 'requests'} & {*sys.modules})"
    imported = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)

    assert ("set()\n", "") == (imported.stdout, imported.stderr)


@pytest.mark.parametrize("pattern", PROJECT["tool"]["coverage"]["report"]["include"])
def test_coverage_gate_matches(pattern):
    """A module that is renamed does not slip out of the coverage gate."""
    assert list(ROOT.glob(pattern))


def test_ruff_ignores_have_reasons():
    """Every rule that is left out says why, on its own line."""
    text = (ROOT / "pyproject.toml").read_text().split("[tool.ruff.lint]")[1].split("[tool.ruff.lint.pydocstyle")[0]
    rules = re.findall(r'^    "[A-Z]+\d*",.*$', text, re.MULTILINE)

    assert rules
    assert [] == [rule for rule in rules if not re.search(r"  # \S+ \S+", rule)]
