"""How long the runs of one model take, as measured: pure arithmetic."""

_WEIGHT = 0.2
"""Of the newest measurement in the moving mean."""

_DOUBT = 0.05


class RunTimes:
    """Moving means by batch size, rounded up to powers of two.

    A size that has not been run is judged by its neighbours: at most in proportion to a smaller
    one, and never longer than a larger one took.
    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self._mean_s: dict[int, float] = {}
        self._fastest_s: dict[int, float] = {}

    def expect(self, seconds: float) -> None:
        """Take the time of a run of one item that was made before there were calls.

        It counts until the first measurement, and refusals because of it wear it down altogether:
        what made the trial slow need not be what makes calls slow.
        """
        self._mean_s.setdefault(0, seconds)

    def observe(self, items: int, seconds: float) -> None:
        """Take a measurement of a run of so many items."""
        size = (items - 1).bit_length()
        fastest_s = self._fastest_s.get(size)
        if fastest_s is None:
            self._mean_s[size] = self._fastest_s[size] = seconds
            return
        self._mean_s[size] += _WEIGHT * (seconds - self._mean_s[size])
        self._fastest_s[size] = min(fastest_s, seconds)

    def estimate(self, items: int) -> float:
        """Return how many seconds a run of so many items will take; 0 while nothing is known."""
        size = (items - 1).bit_length()
        known = self._mean_s.get(size)
        if known is not None:
            return known
        smaller = [other for other in self._mean_s if other < size]
        larger = [self._mean_s[other] for other in self._mean_s if other > size]
        bounds = [min(larger)] if larger else []
        if smaller:
            nearest = max(smaller)
            bounds.append(self._mean_s[nearest] * 2 ** (size - nearest))
        return min(bounds, default=0.0)

    def doubt(self) -> None:
        """Move every mean a little towards the fastest run that was seen.

        Called for each call that is refused because of an estimate: nothing is measured while all
        calls are refused, so an estimate that one slow moment has spoilt would stand for ever.
        """
        for size, mean_s in self._mean_s.items():
            fastest_s = self._fastest_s.get(size, 0.0)
            self._mean_s[size] = mean_s + _DOUBT * (fastest_s - mean_s)
