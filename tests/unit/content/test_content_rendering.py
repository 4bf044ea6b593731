"""Markdown becomes HTML that is safe anywhere and text that reads well."""

import html5lib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from content.rendering import render

SITE = "https://nyheter.example"


def tree(html):
    return html5lib.parseFragment(html, namespaceHTMLElements=False)


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        ("Ett *viktigt* och **starkt** ord", "Ett viktigt och starkt ord"),
        ("[rapporten](https://a.example/r)", "rapporten (https://a.example/r)"),
        ("<https://a.example/r>", "https://a.example/r"),
        ("[Anna](mailto:anna@a.example)", "Anna (anna@a.example)"),
        ("<anna@a.example>", "anna@a.example"),
        ("[här](/nyheter/x)", "här (https://nyheter.example/nyheter/x)"),
        ("rad ett\nrad två", "rad ett rad två"),
        ("rad ett  \nrad två", "rad ett\nrad två"),
        ("# Rubrik\n\ntext", "Rubrik\n\ntext"),
        ("- ett\n- två\n  1. a\n  2. b", "- ett\n- två\n  1. a\n  2. b"),
        ("3. tre\n4. fyra", "3. tre\n4. fyra"),
        ("1. ett\n\n   mer\n\n2. två", "1. ett\n\n   mer\n\n2. två"),
        ("> citat\n> > inre", "> citat\n\n> > inre"),
        ("a\n\n---\n\nb", "a\n\n---\n\nb"),
        ("```\nkod  rad\n```", "kod  rad"),
        ("| a | b |\n|---|---|\n| 1 | 2 |", "a | b\n1 | 2"),
        ("<b>inte html</b>", "<b>inte html</b>"),
        ("{{7*7}} %(x)s ${y}", "{{7*7}} %(x)s ${y}"),
        ("", ""),
    ],
)
def test_plain_text(markdown, text):
    assert render(markdown, SITE).text == text


@pytest.mark.parametrize(("first", "wanted"), [("#", "h2"), ("##", "h2"), ("####", "h2")])
def test_the_highest_heading_is_always_an_h2(first, wanted):
    html = render(f"{first} Ett\n\n{first}# Två", SITE).html
    assert [element.tag for element in tree(html)] == [wanted, "h3"]


@pytest.mark.parametrize(
    "attack",
    [
        "<script>alert(1)</script>",
        "[x](javascript:alert(1))",
        "[x](JaVaScRiPt:alert(1))",
        "[x](data:text/html,<script>alert(1)</script>)",
        "[x](//evil.example/)",
        "![x](https://evil.example/pixel.png)",
        '<noscript><p title="</noscript><img src=x onerror=alert(1)>">',
        "<svg/onload=alert(1)>",
        '<a href="x" onclick="alert(1)">x</a>',
        '[x](https://a.example/ "onmouseover=alert(1)")',
    ],
)
def test_b7_nothing_that_runs_comes_through(attack):
    for element in tree(render(attack, SITE).html).iter():
        assert element.tag in {"DOCUMENT_FRAGMENT", "p", "a"}
        assert set(element.attrib) <= {"href", "title"}
        assert element.attrib.get("href", "https://").startswith(("https://", "http://"))


@pytest.mark.parametrize("entity", ["&#12;", "&#x202e;", "&#x2028;", "&#xFFFE;", "&#1;"])
def test_an_entity_smuggles_no_control_character_in(entity):
    rendered = render(f"a{entity}b", SITE)
    for forbidden in "\x0c\u202e\u2028\ufffe\x01":
        assert forbidden not in rendered.html + rendered.text


@given(st.text(max_size=300))
def test_b7_any_text_renders_to_allowed_elements_alone(markdown):
    blocks = {"p", "br", "ul", "ol", "li", "blockquote", "hr", "pre", "h2", "h3", "h4", "h5", "h6"}
    allowed = blocks | {"strong", "em", "a", "code", "table", "thead", "tbody", "tr", "th", "td"}
    for element in tree(render(markdown, SITE).html):
        for inner in element.iter():
            assert inner.tag in allowed
