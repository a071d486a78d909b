"""Takes secrets out of log lines before they leave the device. Pure.

The agent does not log secrets. This is for the day when a library does, or a person put one where
it did not belong. What a line says by its names (a field `token`, a header `Authorization`) is
taken out whatever it holds, and so is what looks like a credential wherever it stands. Hashes and
identifiers, which the agent's log is full of, stay.
"""

import re
from collections.abc import Callable

import msgspec

REDACTED = "[redacted]"
_NAMES = (
    r"pass(?:word|wd|phrase)|pwd|secret|token|authorization|api[_-]?key|private[_-]?key|access[_-]?key"
    r"|credential|cookie|session[_-]?id"
)
_NAMED = re.compile(rf"(?i){_NAMES}")
_NAMES_SAFE = frozenset({"keyid", "key_id"})
_MAX_DEPTH = 6


_MAX_NAME = 40
"""Characters on either side of a telling word: what is unbounded here takes time by the square."""

_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z0-9 ]+-----.*?(?:-----END [A-Z0-9 ]+-----|\Z)", re.DOTALL), ""),
    (re.compile(r"\beyJ[\w-]{6,}\.[\w-]{6,}(?:\.[\w-]*){0,3}"), ""),
    (re.compile(r"(?i)\b(authorization|cookie)(\\*[\"']?\s*[:=]\s*).*"), r"\1\2"),
    (re.compile(r"(?i)\b(bearer|basic|digest)(\s+)[\w.~+/=-]{6,}"), r"\1\2"),
    # A password may hold what an address may not: up to the last @ it is taken for one.
    (re.compile(r"(://)(?:[^\s:/@]*:(?!\d{1,5}(?:[/\s]|\Z))[^\s\"'<>]*|[^/\s\"'<>]*)@"), r"\1"),
    (
        re.compile(
            rf"(?i)((?<![\w-])[\w-]{{0,{_MAX_NAME}}}?(?:{_NAMES})[\w-]{{0,{_MAX_NAME}}}"
            r"\\*[\"']?\s{0,8}(?:[=:,]|\bis\b)\s{0,8})(?!\[redacted\])"
            r"(?:[bru]{0,2}(?:\\+\"[^\"]*\"?|\\+'[^']*'?|\"(?:\\.|[^\"\\])*\"?|'(?:\\.|[^'\\])*'?)"
            r"|[^\s,;&\"']+)"
        ),
        r"\1",
    ),
    (re.compile(r"(?i)([?&](?:x-amz-)?(?:sig|signature|auth|code|key)=)[^&\s\"']+"), r"\1"),
    (re.compile(r"\bskerry_[\w-]{8,}"), ""),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), ""),
    (re.compile(r"\b(?:gh[pousr]_\w{20,}|xox[abprs]-[\w-]{10,})"), ""),
)
_LONG_WORD = re.compile(r"[\w+-]{32,}={0,2}")
_LONG_BASE64 = re.compile(r"[\w+/-]{32,}={0,2}")
"""With slashes, as lines of a PEM file that were logged one by one; paths look like it too."""

_CAPITALS_OF_BASE64 = 8


def redact_line(line: str) -> tuple[str, int]:
    """Return a line of the log without secrets, and at how many places something was taken out.

    A line that is JSON stays JSON, so that its names can be told from its values.
    """
    try:
        content = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError):
        return redact_text(line)
    if not isinstance(content, dict):
        return redact_text(line)
    cleaned, count = _redact(content, 0)
    return msgspec.json.encode(cleaned).decode(), count


def redact_text(text: str) -> tuple[str, int]:
    """Return a text without what looks like a secret, and how often that was found."""
    count = 0
    for pattern, kept in _PATTERNS:
        text, found = pattern.subn(kept + REDACTED, text)
        count += found
    for words, has_secret in ((_LONG_WORD, _is_mixed), (_LONG_BASE64, _has_many_capitals)):
        text, found = _without_words(words, has_secret, text)
        count += found
    return text, count


def _without_words(
    words: re.Pattern[str], has_secret: Callable[[str], bool], text: str
) -> tuple[str, int]:
    """Take out those of some words that look random; by the character, for it takes little time."""
    taken = sum(has_secret(word) for word in words.findall(text))
    return words.sub(lambda found: REDACTED if has_secret(found[0]) else found[0], text), taken


def _is_mixed(word: str) -> bool:
    return all(any(map(kind, word)) for kind in (str.isupper, str.islower, str.isdigit))


def _has_many_capitals(word: str) -> bool:
    return sum(map(str.isupper, word)) >= _CAPITALS_OF_BASE64 and any(map(str.islower, word))


def _redact(value: object, depth: int) -> tuple[object, int]:
    if isinstance(value, str):
        return redact_text(value)
    if depth >= _MAX_DEPTH and isinstance(value, dict | list):
        return REDACTED, 1
    if isinstance(value, dict):
        cleaned: dict[str, object] = {}
        count = 0
        for name, inner in value.items():
            safe_name, found = redact_text(str(name))
            count += found
            if _NAMED.search(str(name)) and str(name) not in _NAMES_SAFE and inner:
                cleaned[safe_name], found = REDACTED, 1
            else:
                cleaned[safe_name], found = _redact(inner, depth + 1)
            count += found
        return cleaned, count
    if isinstance(value, list):
        pairs = [_redact(inner, depth + 1) for inner in value]
        return [inner for inner, _ in pairs], sum(found for _, found in pairs)
    return value, 0
