"""What a chapter shows besides figures: the library's own source, sentences, tables, and the playground's page."""

from __future__ import annotations

import inspect

from vqvae_lib import nearest_code, perplexity
from vqvae_lib.notebook import say, source, table
from vqvae_lib.playground import playground
from vqvae_lib.quantizer import VectorQuantizer


def test_source_is_the_librarys_own_in_one_block():
    shown = source(nearest_code, perplexity).data
    assert shown.startswith("```python\n") and shown.endswith("\n```")
    assert inspect.getsource(nearest_code).rstrip() in shown
    assert shown.index("def nearest_code") < shown.index("def perplexity")


def test_a_method_is_shown_from_the_margin():
    shown = source(VectorQuantizer._loss).data
    assert shown.startswith("```python\ndef _loss(")


def test_sentences_lose_the_indent_of_their_code():
    assert say("\n    One line,\n    and another.\n    ").data == "One line,\nand another."


def test_a_table_has_a_column_for_every_name_and_four_figures_a_number():
    rows = [{"what": "ours", "ms": 1.23456}, {"what": "theirs", "codes": 1024, "ms": 12345.6}]
    assert table(iter(rows)).data.splitlines() == [
        "| what | ms | codes |",
        "| --- | --- | --- |",
        "| ours | 1.235 |  |",
        "| theirs | 1.235e+04 | 1024 |",
    ]


def test_each_playground_has_a_name_of_its_own_and_asks_no_other_host():
    one, other = playground().data, playground().data
    assert "@ID@" not in one
    assert one != other
    assert "http://" not in one.replace("http://www.w3.org", "") and "https://" not in one
