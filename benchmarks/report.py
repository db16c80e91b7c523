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
    parts = {
        "Throughput": throughput_table(report),
        "Latency": latency_table(report),
        "What was aimed at": aims_table(report),
    }
    return "\n\n".join([where(report), *(f"### {title}\n\n{table}" for title, table in parts.items())])


def where(report: Report) -> str:
    """The machine, what ran on it, and what is to be kept in mind."""
    of = report.machine
    place = f"{of['cpu']} processors ({of['model']}), load average at the start {of['load']}"
    software = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    system = f"{of['system']}, Python {of['python']}, {software}; the sink is {of['sink']}"
    return f"Rounds: {report.rounds}. {place}; {system}. {report.note}".strip()


def brief(report: Report) -> str:
    """Median rates, and where they were measured."""
    of = report.machine
    place = f"{of['cpu']} processors, load average at the start {of['load']}, rounds: {report.rounds}."
    return "\n\n".join([brief_table(report), f"{place} {report.note}".strip()])


def write_docs(report: Report) -> None:
    """Replace the figures between the marks in the documents."""
    _replace(ROOT / "docs" / "performance.md", "results", whole(report))
    _replace(ROOT / "README.md", "results", brief(report))


def _replace(path: Path, name: str, content: str) -> None:
    path.write_text(between(path.read_text(encoding="utf-8"), name, content), encoding="utf-8")


def main() -> None:
    """Read, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write-docs", action="store_true", help="write README.md and docs/performance.md as well")
    given = parser.parse_args()
    report = Report.from_json(json.loads((RESULTS / "relay.json").read_text(encoding="utf-8")))
    (RESULTS / "relay.md").write_text(f"# The last run of make bench\n\n{whole(report)}\n", encoding="utf-8")
    if given.write_docs:
        write_docs(report)
    print(whole(report))


if __name__ == "__main__":
    main()
