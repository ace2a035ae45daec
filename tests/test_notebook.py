"""What a chapter shows besides figures: source, sentences, tables, quick mode, and the playground's page."""

import inspect

from vqvae_book.notebook import quick, say, source, table
from vqvae_book.playground import playground
from vqvae_lib import VQVAE, nearest_code, perplexity


def test_source_is_that_of_the_library_in_one_block_from_the_margin():
    shown = source(nearest_code, perplexity, VQVAE.encode).data
    assert shown.startswith("```python\n") and shown.endswith("\n```")
    assert inspect.getsource(nearest_code).rstrip() in shown
    assert shown.index("\ndef perplexity") < shown.index("\ndef encode")


def test_sentences_lose_their_indent_and_tables_have_every_name_and_four_figures_a_number():
    assert say("\n    One line,\n    and another.\n    ").data == "One line,\nand another."
    rows = [{"what": "ours", "ms": 1.23456}, {"what": "theirs", "codes": 1024, "ms": 12345.6}]
    lines = ["| what | ms | codes |", "| --- | --- | --- |", "| ours | 1.235 |  |", "| theirs | 1.235e+04 | 1024 |"]
    assert table(iter(rows)).data.splitlines() == lines


def test_quick_mode_cuts_long_runs_alone(monkeypatch):
    for mode, steps in (("1", [20, 3, 2]), ("0", [100, 3, 100]), ("", [100, 3, 100])):
        monkeypatch.setenv("VQVAE_QUICK", mode)
        assert [quick(100), quick(3), quick(100, fewer=2)] == steps


def test_each_playground_has_a_name_of_its_own_and_asks_no_other_host():
    one, other = playground().data, playground().data
    assert "@ID@" not in one and one != other
    assert "http://" not in one.replace("http://www.w3.org", "") and "https://" not in one
