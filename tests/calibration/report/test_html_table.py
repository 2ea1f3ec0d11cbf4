from __future__ import annotations

import pytest

from support.html_checker import read_page
from yolact_calibration.report.html_page import UNDEFINED
from yolact_calibration.report.html_table import Column, table


def test_tables_have_heads_and_leave_out_what_nobody_knows() -> None:
    columns = [Column("Name", is_number=False), Column("Size, <MB>"), Column("Never known")]
    found = read_page(table("Files", columns, [["a", "1", UNDEFINED], ["b", UNDEFINED, UNDEFINED]]))
    assert [head.text for head in found.all("th") if head.attributes["scope"] == "col"] == ["Name", "Size, <MB>"]
    assert [head.text for head in found.all("th") if head.attributes["scope"] == "row"] == ["a", "b"]
    assert found.texts("td") == ["1", UNDEFINED]
    assert found.all("span")[0].text == "Files"
    assert found.all("div")[0].attributes["aria-label"] == "Files"


def test_a_row_that_is_too_short_is_a_mistake() -> None:
    with pytest.raises(IndexError):
        table("x", [Column("a"), Column("b")], [["1"]])


def test_wide_tables_shrink_on_paper_and_the_widest_break_their_words() -> None:
    def element(columns: int, cell: str) -> dict[str, str]:
        page = table("caption", [Column("name")] + [Column("value")] * columns, [["res2"] + [cell] * columns])
        return read_page(page).all("table")[0].attributes

    assert element(5, "1.25") == {}
    assert element(18, "1.25") == {"style": "--fit: 0.81"}
    assert element(40, "1.25") == {"class": "crowded", "style": "--fit: 0.72"}
    # Tags take no room, and nor do the letters of an entity.
    assert element(9, f"1.25<small class='{'x' * 90}'>&minus;&minus;&minus;</small>") == {}
