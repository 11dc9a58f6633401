"""Names of results: which column stands behind a row's own name, and back."""

from mmlearn.reported import by_row, result_name


def test_a_name_and_its_row_and_column():
    assert [result_name("colour, right", column) for column in ("here", "zoo", "untrained")] == [
        "colour, right", "colour, right, zoo", "colour, right, untrained",
    ]  # fmt: skip
    results = [{"name": result_name(row, column), "obtained": k} for k, (row, column) in enumerate(PAIRS)]
    found = by_row(results)
    assert list(found) == ["colour, right", "only packaged"]
    assert {(row, column): one["obtained"] for row, of in found.items() for column, one in of.items()} == {
        pair: k for k, pair in enumerate(PAIRS)
    }


PAIRS = [("colour, right", "here"), ("colour, right", "zoo"), ("colour, right", "untrained"), ("only packaged", "zoo")]
