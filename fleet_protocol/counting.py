"""A number and what it counts, as a sentence says them."""


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return such as ``1 device`` or ``2 devices``.

    Args:
        number: of things.
        noun: for one of them.
        plural: for all other numbers, where it is not the noun with an s.
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
