"""Charts: the last hour in lines, and the lines as HTML."""

from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from outbox.admin.charts import Chart, Charts, Line, charts_of
from outbox.admin.drawing import draw
from outbox.states import State
from outbox.store.lanes import Lane
from outbox.store.series import MINUTES, Rates
from outbox.store.tally import Count, Tally

NOON = datetime(2030, 1, 31, 12, tzinfo=UTC)
HOUR = [NOON + timedelta(minutes=minute) for minute in range(MINUTES)]
ORDERS = Lane("default", "orders")


def line(**numbers):
    """Zeros, but for the minutes named, such as ``m58=3``."""
    found = [0.0] * MINUTES
    for name, number in numbers.items():
        found[int(name[1:])] = number
    return found


def lines(*, lanes, **hour):
    """The lines of each chart, by name, from the rates of the hour and what there is now."""
    nothing = {"enqueued": {}, "sent": {}, "failed": {}}
    present = Tally({}, {key: Count(number) for key, number in lanes.items()}, None)
    found = charts_of(Rates(HOUR, **nothing | hour, exact=True), present)
    return {chart.name: {one.name: one.values for one in chart.lines} for chart in found.charts}


def test_backlog_is_reckoned_back():
    """What is pending now, less what came since, and what went since besides, was pending then."""
    found = lines(
        lanes={(ORDERS, State.PENDING): 4, (ORDERS, State.FAILED): 2},
        enqueued={ORDERS: line(m50=10, m58=1)},
        sent={ORDERS: line(m55=5)},
        failed={ORDERS: line(m59=2)},
    )["backlog"]

    minutes = (49, 50, 54, 55, 57, 58, 59)
    assert [0, 10, 10, 5, 5, 6, 4] == [found["pending"][minute] for minute in minutes]
    assert (0, 0, 2) == tuple(found["failed"][minute] for minute in (49, 58, 59))


def test_backlog_never_was_negative():
    """Estimates need not fit each other; a backlog below nothing is nothing."""
    found = lines(lanes={}, enqueued={ORDERS: line(m50=10)})["backlog"]

    assert (0.0,) * MINUTES == found["pending"]


def test_committing_rows_are_a_backlog():
    """A half message that is not confirmed yet is still to be sent."""
    found = lines(lanes={(ORDERS, State.COMMITTING): 3, (ORDERS, State.IN_DOUBT): 5})["backlog"]

    assert 3 == found["pending"][-1]


def test_topics_beyond_five_are_told_together():
    """The five busiest topics have a line each, in every chart, all others one; destinations are named."""
    lanes = [Lane("default", f"topic-{number}") for number in range(7)] + [Lane("billing", "topic-0")]
    sent = {lane: line(m30=10 * number) for number, lane in enumerate(lanes, start=1)}

    found = lines(lanes={}, sent=sent)["sent-by-topic"]

    assert ["billing/topic-0", "topic-6", "topic-5", "topic-4", "topic-3", "other topics"] == list(found)
    assert 10 + 20 + 30 == found["other topics"][30]


def test_rates_are_drawn_as_they_are():
    """Enqueued, sent and failed are totals over all lanes."""
    hour = {ORDERS: line(m10=1), Lane("default", "invoices"): line(m10=2)}

    assert 3 == lines(lanes={}, enqueued=hour)["rates"]["enqueued"][10]


# --- drawing ------------------------------------------------------------------------------------------------------


class Parsed(HTMLParser):
    """The tags and texts of a figure."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.texts.append(data)


def drawn(*lines, level=True, stacked=True, exact=True, title="Backlog"):
    (figure,) = draw(Charts(tuple(HOUR), (Chart("backlog", title, lines, level=level, stacked=stacked),), exact))
    return figure


def test_figure_is_well_formed():
    """Every element is closed, and the SVG has the title and description that it is labelled by."""
    figure = ET.fromstring(drawn(Line("pending", tuple(line(m59=3)), "pending")))
    svg = figure.find(".//svg")
    named = {one.get("id") for one in svg.iter() if one.get("id")}

    assert "img" == svg.get("role")
    assert set(svg.get("aria-labelledby").split()) == named
    assert "pending: lowest 0, highest 3, now 3" in svg.findtext("desc")
    assert "From 12:00 to 12:59 UTC" in svg.findtext("desc")


def test_figure_has_the_numbers_as_a_table():
    """What the shapes show stands in a table, with a caption and headers."""
    figure = ET.fromstring(drawn(Line("sent", (1.0,) * MINUTES, "sent"), level=False, stacked=False))
    table = figure.find(".//table")

    assert "Backlog: in the five minutes from then on, UTC" == table.findtext("caption")
    assert [("12:00", "5"), ("12:55", "4")] == [
        (row.findtext("th"), row.findtext("td")) for row in table.findall("tbody/tr")[:: MINUTES // 5 - 1]
    ]


def test_minute_that_is_not_over_is_left_out_of_rates():
    """It would look like a drop."""
    values = (5.0,) * (MINUTES - 1) + (1.0,)

    assert "lowest 5" in drawn(Line("sent", values, "sent"), level=False, stacked=False)
    assert "lowest 1" in drawn(Line("sent", values, "sent"))


def test_figure_escapes_names():
    """A topic's name is text, whatever it holds."""
    parsed = Parsed(drawn(Line("<script>alert(1)</script>", (1.0,) * MINUTES, "0"), title="<b>"))

    assert "script" not in parsed.tags
    assert "<script>alert(1)</script>" in "".join(parsed.texts)


def test_figure_needs_no_script_and_no_style():
    """A strict content security policy lets it through: no inline style, no handler, nothing from elsewhere."""
    parsed = Parsed(drawn(Line("pending", (1.0,) * MINUTES, "pending")))

    assert not {"script", "style", "link", "img", "image", "use", "foreignobject"} & set(parsed.tags)
    assert [] == [name for name, _ in parsed.attributes if name.startswith("on") or name in {"style", "href", "src"}]


@pytest.mark.parametrize(
    ("highest", "top"), [(0, "4"), (4, "4"), (5, "8"), (21, "40"), (41, "80"), (999, "1.2k"), (2e6, "2M")]
)
def test_axis_ends_where_it_can_be_read(highest, top):
    """The axis reaches beyond the highest number, by steps that are whole."""
    parsed = Parsed(drawn(Line("pending", (float(highest),) * MINUTES, "pending")))

    assert top == next(text for text in parsed.texts if text != "Backlog")


def test_stacked_lines_stand_on_each_other():
    """The top of the last line is the sum of all."""
    figure = ET.fromstring(
        drawn(Line("failed", (2.0,) * MINUTES, "failed"), Line("pending", (2.0,) * MINUTES, "pending"))
    )
    paths = {one.get("class"): one.get("d") for one in figure.iter("path") if one.get("class")}

    assert paths["ob-line ob-c-failed"].startswith("M0 80L")
    assert paths["ob-line ob-c-pending"].startswith("M0 0L")
    assert 2 == sum(name.startswith("ob-area") for name in paths)


def test_figure_without_lines():
    """Where nothing happened there are axes, and a word about it."""
    assert "Nothing in the last hour." in drawn()


def test_estimates_say_so():
    """Numbers from a sample are marked."""
    assert "estimated" in drawn(exact=False)
    assert "estimated" not in drawn()
