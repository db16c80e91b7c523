"""What `make bench` makes of its figures."""

import dataclasses
import json
import re

import pytest

from benchmarks.figures import (
    AIMS,
    CURL,
    REQUESTS,
    SDK_LOOP,
    TASK_PER_ROW,
    TWO_CURL,
    TWO_REQUESTS,
    WRK,
    Aim,
    Latency,
    Report,
    Series,
    Spread,
    aims_table,
    between,
    brief_table,
    latency_table,
    throughput_table,
)


def report(*series, latency=None):
    """A report of three rounds."""
    machine = {"cpu": 2, "system": "Linux", "python": "3.11"}
    return Report(machine, {"PostgreSQL": "15.1"}, 3, "quiet", list(series), latency or Latency())


def series(what, rates, *, sink="0 ms", database="PostgreSQL", cpu_us=(40.0, 50.0, 60.0)):
    return Series(sink, database, what, 16, list(rates), list(cpu_us))


def aim(what):
    return next(one for one in AIMS if one.what == what)


def cells(table):
    """A Markdown table's rows, the head and the line below it left out."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_ratio_is_taken_within_each_round():
    """A machine that halves its speed between two rounds changes no ratio."""
    found = report(series(CURL, [1000, 500, 2000]), series(SDK_LOOP, [100, 50, 100])).ratio("0 ms", CURL, SDK_LOOP)

    assert Spread(10, 10, 20) == found


@pytest.mark.parametrize("missing", [CURL, SDK_LOOP])
def test_ratio_of_one_that_took_no_part_is_unknown(missing):
    """What was not measured is neither met nor missed."""
    there = [one for one in (CURL, SDK_LOOP) if one != missing]

    assert report(series(there[0], [1, 2, 3])).ratio("0 ms", CURL, SDK_LOOP) is None


def test_find_takes_the_one_with_postgresql():
    """Aims are about PostgreSQL; other databases have the same engines."""
    found = report(series(CURL, [1], database="SQLite"), series(CURL, [2])).find("0 ms", CURL)

    assert [2] == found.rates


def test_find_knows_the_sink():
    """The same contender at 5 ms is another."""
    assert report(series(CURL, [1], sink="5 ms")).find("0 ms", CURL) is None


def test_find_leaves_out_what_has_no_rounds():
    """Without wrk its series is empty."""
    assert report(series(WRK, [], database="")).find("0 ms", WRK) is None


@pytest.mark.parametrize(
    ("at_least", "median", "met"),
    [(True, 5.9, False), (True, 6, True), (False, 6, True), (False, 6.1, False)],
)
def test_aim_judges_the_median(at_least, median, met):
    """The bound itself is good enough, in either direction."""
    one = Aim("a figure", 6, "×", lambda _: Spread(median, 1, 9), at_least)

    assert met is one.is_met(report())


def test_aim_is_not_judged_without_a_figure():
    """Nothing measured is nothing met."""
    assert all(one.is_met(report()) is None for one in AIMS)


def test_aims_are_read_from_where_they_belong():
    """Each aim finds its own figure among others that are near."""
    full = report(
        series(TASK_PER_ROW, [10.0]),
        series(SDK_LOOP, [100.0]),
        series(REQUESTS, [110.0], cpu_us=[300.0]),
        series(CURL, [700.0], cpu_us=[45.0]),
        series(CURL, [1.0], database="MariaDB", cpu_us=[1.0]),
        series(WRK, [10_000.0], database="", cpu_us=()),
        series(TASK_PER_ROW, [9.0], sink="5 ms"),
        series(SDK_LOOP, [10.0], sink="5 ms"),
        series(REQUESTS, [150.0], sink="5 ms", cpu_us=[1.0]),
        series(CURL, [500.0], sink="5 ms", cpu_us=[1.0]),
        series(TWO_REQUESTS, [285.0], sink="5 ms"),
        series(TWO_CURL, [650.0], sink="5 ms"),
        latency=Latency([[float(ms) for ms in range(1, 100)]], [1000.0], [1200.0], [500.0]),
    )

    assert [11, 70, 1.1, 15, 7, 50, 300, 45, 7, 1.9, 1.3, 50, 95, 200] == pytest.approx(
        [one.measure(full).median for one in AIMS]
    )
    assert [one.what for one in AIMS if not one.is_met(full)] == [
        "curl engine, of wrk on the same sink, 0 ms",
        "two relays against one, curl engine, 5 ms",
        "commit to delivered, p50",
        "commit to delivered, p95",
    ]


def test_latency_takes_percentiles_of_each_round():
    """One round with a hiccup must not decide on all."""
    calm, hiccup = [float(ms) for ms in range(1, 100)], [1000.0] * 99

    assert Spread(95, 95, 1000) == Latency([calm, hiccup, calm]).percentile(95)


def test_latency_without_rounds_has_no_percentile():
    """Without Redis nothing is nudged."""
    assert Latency().percentile(50) is None
    assert Latency().caller_us() is None


def test_report_survives_json():
    """It is read again to draw it and to write the documents."""
    one = report(series(CURL, [1.5, 2.5, 3.5]), latency=Latency([[1.0, 2.0]], [3.0], [4.0], [5.0]))

    assert one == Report.from_json(json.loads(json.dumps(dataclasses.asdict(one))))


def test_throughput_table_shows_median_and_spread():
    """Each contender is a row; thousands are told apart."""
    found = cells(throughput_table(report(series(CURL, [9000.4, 12345.6, 11111.1]))))

    assert [["0 ms", "PostgreSQL", CURL, "16", "11,111", "9,000–12,346", "50"]] == found


def test_throughput_table_leaves_cpu_empty_where_it_is_unknown():
    """What is sent by wrk is measured in number alone."""
    assert "" == cells(throughput_table(report(series(WRK, [1, 2, 3], cpu_us=()))))[0][-1]


def test_brief_table_puts_the_sinks_side_by_side():
    """Those that ran on both alone: the others have nothing to be compared with."""
    both = [series(CURL, [1, 2, 3]), series(CURL, [10, 20, 30], sink="5 ms")]
    found = cells(
        brief_table(report(*both, series(f"{CURL}, half messages", [5]), series(CURL, [7], database="SQLite")))
    )

    assert [[CURL, "2", "20"]] == found


def test_aims_table_says_whether_each_is_met():
    """Met, missed and not measured are three things, and each aim is there."""
    table = aims_table(report(series(CURL, [700.0], cpu_us=[60.0]), series(SDK_LOOP, [100.0])))
    found = {row[0]: row[1:] for row in cells(table)}

    assert [one.what for one in AIMS] == list(found)
    assert ["≥ 6×", "7×", "7–7", "met"] == found["curl engine against the SDK's loop, 0 ms"]
    assert ["≤ 50 µs", "60 µs", "60–60", "**not met**"] == found["CPU a message, curl engine, 0 ms"]
    assert ["≤ 10 ms", "", "", "not measured"] == found["commit to delivered, p50"]


def test_latency_table_says_when_there_is_nothing():
    """It is no empty table."""
    assert "not measured" in latency_table(report())


def test_latency_table_has_both_sides():
    """The message's, and the one's that commits."""
    table = latency_table(report(latency=Latency([[1.0, 2.0, 3.0]], [400.0], [450.0], [900.0])))

    assert ["2", "400", "450", "50", "900"] == [row[1] for row in cells(table) if not re.search("p9[59]", row[0])]


DOCUMENT = "before\n<!-- results: written by make bench-docs -->\nold\n<!-- end of results -->\nafter\n"


def test_between_replaces_what_stands_there():
    """What stands around it stays, and doing it twice changes nothing."""
    once = between(DOCUMENT, "results", "| new |")

    assert "| new |" in once
    assert "old" not in once
    assert once.startswith("before\n")
    assert once.endswith("\nafter\n")
    assert once == between(once, "results", "| new |")


@pytest.mark.parametrize("text", ["", DOCUMENT * 2, DOCUMENT.replace("end of", "end")])
def test_between_wants_its_marks_once(text):
    """A document without them, or with them twice, is not guessed at."""
    with pytest.raises(ValueError, match="results"):
        between(text, "results", "new")
