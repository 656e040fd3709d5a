"""HTML from text that is never trusted."""

import pytest

from monitor.policy.report.markup import element, safe, table


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<a href='x'>&\"", "&lt;a href=&#x27;x&#x27;&gt;&amp;&quot;"),
        ("a\tb\nc", "a\tb\nc"),
        ("\x00\x1b\x7f\x85", "\\x00\\x1b\\x7f\\x85"),
        ("\u202e\u2066\u200f", "\\u202e\\u2066\\u200f"),
        ("\ud800\ue000\U000e0001", "\\ud800\\ue000\U000e0001"),
        ("naïve 漢字 😀", "naïve 漢字 😀"),
        (3.5, "3.5"),
    ],
)
def test_text_neither_marks_up_nor_commands(text, shown):
    assert safe(text) == shown


def test_elements_escape_attributes_and_not_content():
    assert element("p", "<b>x</b>", "y") == "<p><b>x</b>y</p>"
    assert element("p", class_='a" onclick="x', aria_label="<") == (
        '<p class="a&quot; onclick=&quot;x" aria-label="&lt;"></p>'
    )


def test_tables_have_a_header_in_every_row():
    text = table("c<", ("a", "b"), [["1", "2"], ["<i>3</i>", "4"]], wide=True)
    assert '<th scope="row">1</th><td>2</td>' in text
    assert '<th scope="row"><i>3</i></th><td>4</td>' in text
    assert '<th scope="col">a</th><th scope="col">b</th>' in text
    assert "<caption>c&lt;</caption>" in text
    assert 'class="scroll wide" tabindex="0" role="region" aria-label="c&lt;"' in text


def test_a_table_without_rows_is_nothing():
    assert table("c", ("a",), []) == ""
