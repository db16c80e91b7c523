"""Write ``results/relay.md`` from what ``make bench`` measured last, and print it.

::

    python benchmarks/report.py                 # or make bench, which does it at its end
    python benchmarks/report.py --write-docs    # README.md and docs/performance.md as well: make bench-docs
"""

import argparse
import json
from pathlib import Path

from benchmarks.figures import Report, aims_table, between, brief_table, latency_table, throughput_table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def whole(report: Report) -> str:
    """Everything, as Markdown."""
    parts = [_where(report), throughput_table(report), latency_table(report), aims_table(report)]
    return "\n\n".join(parts)


def _where(report: Report) -> str:
    of = dict(report.machine)
    place = f"{of.pop('cpu')} processors, {of.pop('system')}, Python {of.pop('python')}"
    sink = f"sink: {of.pop('sink')}; load average at the start: {of.pop('load')}"
    packages = ", ".join(f"{name} {version}" for name, version in of.items())
    return " ".join([f"{report.rounds} rounds. {place}; {packages}; {sink}.", report.note]).strip()


def write_docs(report: Report) -> None:
    """Replace the figures between the marks in the documents."""
    _replace(ROOT / "docs" / "performance.md", "results", whole(report))
    _replace(ROOT / "README.md", "results", brief_table(report))


def _replace(path: Path, name: str, content: str) -> None:
    path.write_text(between(path.read_text(encoding="utf-8"), name, content), encoding="utf-8")


def main() -> None:
    """Read, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write-docs", action="store_true", help="write README.md and docs/performance.md as well")
    given = parser.parse_args()
    report = Report.from_json(json.loads((RESULTS / "relay.json").read_text(encoding="utf-8")))
    (RESULTS / "relay.md").write_text(f"{whole(report)}\n", encoding="utf-8")
    if given.write_docs:
        write_docs(report)
    print(whole(report))


if __name__ == "__main__":
    main()
