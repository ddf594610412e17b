"""JSON of a cell: what it says, or one error for all that it cannot be."""

import pytest

from mmtrain.data.tables.json_rows import MAX_NESTING, parse_json


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ('{"a": [1, null, "\\ud83d\\ude00"]}', {"a": [1, None, "😀"]}),
        ('"Bär"', "Bär"),
        ('"\\\\ud83d"', "\\ud83d"),
        ('{"a": 1}'.encode("utf-16"), {"a": 1}),
        ("[" * MAX_NESTING + "]" * MAX_NESTING, None),
        ("[" + "[1]," * 500 + "2]", [[1]] * 500 + [2]),
        ('["' + "[" * 500 + '", "a\\"[' + "{" * 200 + '"]', ["[" * 500, 'a"[' + "{" * 200]),
    ],
)
def test_json_is_read(text: str | bytes, content: object) -> None:
    result = parse_json(text)
    assert content is None or result == content


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1,", "Expecting value"),
        ("[" * 200_000, "nested more than 100 deep"),
        ('{"a":' * 101 + "1" + "}" * 101, "nested more than 100 deep"),
        ("[" * 900 + "]" * 900, "nested more than 100 deep"),
        ('["\\ud83d"]', "half of a surrogate pair"),
        ('{"a\\udc00": 1}', "half of a surrogate pair"),
        ('"\ud83d"', "half of a surrogate pair"),
        (b'"\xed\xa0\xbd"', "codec can't decode"),
        (b'"\xff"', "codec can't decode"),
        ("1" * 5000, "limit"),
        ('["' + '\\"' * 10**6 + "[" * 200, "Unterminated string|Expecting"),  # in linear time
    ],
)
def test_what_is_no_json_of_a_cell_is_a_value_error(text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(text)
