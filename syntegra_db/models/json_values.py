"""JSON values that jsonb stores exactly.

The encoder converts keys that are not strings, so `{1: "a", "1": "b"}` would lose a value. jsonb stores 1e23 as a
decimal, which Python reads as another number than the float; an int has the exact value of the float.
"""

from __future__ import annotations

import json.encoder
import re
from types import NoneType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SCALARS = frozenset({str, int, float, bool, NoneType})
# Readers of deeper values could exceed Python's recursion limit.
MAX_NESTING = 500
# An escaped NUL, and not an escaped backslash before the letters.
NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def _reject(_value: Any) -> None:
    raise TypeError


def _encoder(default: Callable[[Any], None]) -> Callable[[Any], str]:
    """Return a JSON encoder that calls `default` for values of other types.

    `JSONEncoder.encode` creates an encoder in C for each value, which takes twice as long as encoding a small value.
    """
    options: tuple[Any, ...] = (None, default, json.encoder.encode_basestring, None, ":", ",", False, False, False)
    encode = json.encoder.c_make_encoder(*options)  # type: ignore[attr-defined]  # not in typeshed
    return lambda value: "".join(encode(value, 0))


_encode = _encoder(_reject)
# For an engine with its own serializer, which may know more types.
_encode_known_types = _encoder(lambda _: None)


def exact_json(value: Any, *, other_types: bool = False) -> tuple[Any, str]:
    """Return `value` with floats beyond the range of exact integers as ints, and its JSON text, not yet encoded.

    Args:
        value: a JSON value; tuples are arrays.
        other_types: whether values of other types are accepted, as null in the text.

    Raises:
        TypeError: a key is not a str, or a value has another type.
        ValueError: NaN, an infinity, a NUL character, a cycle, or more than `MAX_NESTING` levels. A lone surrogate is
            in the text, which has no encoding then.
        RecursionError: same as for too many levels.
    """
    encode = _encode_known_types if other_types else _encode
    text = encode(value)
    if "e+" in text:
        value = _large_floats_as_ints(value)
        text = encode(value)
    if "\\u0000" in text and NUL.search(text):
        raise ValueError
    _require_string_keys(value, MAX_NESTING)
    return value, text


def _require_string_keys(value: Any, levels: int) -> None:
    if isinstance(value, dict):
        # Raises TypeError for a key that is not a str.
        "".join(value)
        values: Iterable[Any] = value.values()
    elif isinstance(value, list | tuple):
        values = value
    else:
        return
    if SCALARS.issuperset(map(type, values)):
        return
    if not levels:
        raise ValueError
    for element in values:
        _require_string_keys(element, levels - 1)


def _large_floats_as_ints(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _large_floats_as_ints(element) for key, element in value.items()}
    if isinstance(value, list | tuple):
        return [_large_floats_as_ints(element) for element in value]
    is_large = isinstance(value, float) and abs(value) >= 2**53
    return int(value) if is_large else value
