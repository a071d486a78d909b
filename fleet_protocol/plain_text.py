"""Text from elsewhere, made fit for a terminal.

What a device, a server or a file says may hold characters that a terminal obeys: it could recolour
or overwrite what was printed before, or put a command into the clipboard. Whatever does not print
is shown as JSON writes it, so that JSON stays the same JSON.
"""


def plain(text: str) -> str:
    """Return a text on one line, with each character that does not print as JSON escapes it."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escaped(each) for each in text)


def plain_lines(text: str) -> str:
    """Return a text in which the ends of lines, and no other control, are left."""
    return "\n".join(map(plain, text.split("\n")))


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(
        f"\\u{high:02x}{low:02x}" for high, low in zip(units[::2], units[1::2], strict=True)
    )
