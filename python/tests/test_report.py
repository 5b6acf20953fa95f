"""The page of heads from Python. The page itself: src/report, tests/report."""

import html
import re

import numpy as np
import polyhead
import pytest

WORDS = [["the", "cat", "sat"], ["a", "<b>", "‮"]]


def weights(*shape):
    x = np.random.default_rng(0).random(shape).astype("float32")
    return x / x.sum(-1, keepdims=True)


def test_page_of_layers(tmp_path):
    report = polyhead.Report({"Layer 1": weights(2, 4, 3, 3), "Layer 2": weights(2, 4, 3, 3)}, WORDS,
                             title="Two layers", guide=["Look."])
    report.save(tmp_path / "heads.html")
    text = (tmp_path / "heads.html").read_text(encoding="utf-8")
    assert text == report.html() and text.lower().startswith("<!doctype html>")
    assert "Two layers" in text and "<b>" not in text  # labels are data


def test_it_shows_itself_in_a_notebook():
    report = polyhead.Report(weights(1, 2, 3, 5))
    found = re.fullmatch(r'<iframe srcdoc="([^"]*)" .*></iframe>', report._repr_html_())
    assert html.unescape(found.group(1)) == report.html()


@pytest.mark.parametrize("layers, tokens, words", [
    (weights(2, 3, 3), None, "weights are"), (weights(2, 4, 3, 3), WORDS[:1], "must be"),
    (weights(1, 4, 2, 3), WORDS[:1], "labels"), ({}, None, "at least one"),
    (np.zeros((), "float32"), None, "weights are")])
def test_refusals(layers, tokens, words):
    with pytest.raises(ValueError, match=words):
        polyhead.Report(layers, tokens).html()


@pytest.mark.parametrize("arguments, named", [
    ({"tokens": [["a", "b\udc80"]]}, r"tokens\[0\]"), ({"key_tokens": [["\ud800"]]}, r"key_tokens\[0\]"),
    ({"title": "\ud800"}, "title"), ({"subtitle": "\ud800"}, "subtitle"), ({"guide": ["\ud800"]}, "guide"),
    ({"layers": {"\ud800": weights(1, 2, 3, 3)}}, "names of layers")], ids=str)
def test_texts_that_utf8_has_not(arguments, named):
    with pytest.raises(ValueError, match=f"^Report: {named}: got '.*'; need text without surrogates$") as it:
        polyhead.Report(**{"layers": weights(1, 2, 3, 3)} | arguments)
    str(it.value).encode()  # can be printed


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("number, shown", [
    (np.nan, "nan"), (-0.25, "-0.25"), (np.inf, "inf"), (-np.inf, "-inf")])
def test_numbers_that_are_no_weights(dtype, number, shown):
    bad = weights(1, 2, 3, 8).astype(dtype)
    bad[0, 1, 2, 5] = number
    for array in (bad, np.asfortranarray(bad), np.flip(bad, 3)):
        with pytest.raises(ValueError, match=rf"^Report: weights: got {shown}, in the layer 'a \"b\"'; need "
                                             "numbers of 0 or more$"):
            polyhead.Report({"fine": weights(1, 2, 3, 8), 'a "b"': array}).html()
    fine = weights(1, 2, 3, 8).astype(dtype)
    fine[0, 0, 0, 0], fine[0, 0, 0, 1] = 1.5, -0.0  # after dropout a weight may be above 1
    assert polyhead.Report(fine).html()


@pytest.mark.parametrize("layers, tokens", [(weights(2, 4, 3, 3), WORDS), (weights(2, 4, 3, 3), None)])
def test_no_item_is_left_out(layers, tokens):
    with pytest.raises(ValueError, match="^Report: key_tokens: lists of 1 batch items; need 2$"):
        polyhead.Report(layers, tokens, WORDS[:1])
