from __future__ import annotations

from collections import OrderedDict
from typing import Any

from yolact_export.checkpoint.containers import mappings_in


def test_outer_dictionaries_come_first_with_the_way_to_them() -> None:
    inner: dict[str, int] = {"x": 1}
    content = {"a": [3, inner], "b": OrderedDict(c=(inner, {}))}
    assert [path for path, _ in mappings_in(content)] == [(), ("b",), ("a", "1"), ("b", "c", "1")]


def test_a_container_in_itself_is_given_once() -> None:
    content: dict[str, Any] = {}
    content["self"] = content
    content["list"] = [content, [content]]
    assert [path for path, _ in mappings_in(content)] == [()]


def test_what_is_no_container_holds_none() -> None:
    assert list(mappings_in(7)) == list(mappings_in("text")) == list(mappings_in([1, (2, "a")])) == []
