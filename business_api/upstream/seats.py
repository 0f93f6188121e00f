"""How many answers of a model are under way, and whether it takes one more."""


class Seats:
    """`most` seats, of which `taken` are; one may be taken beyond that by who does not ask.

    `wanted` are those that somebody counts on, who may still be answered elsewhere.
    """

    def __init__(self, most: int) -> None:
        self.most, self.taken, self.wanted = most, 0, 0

    @property
    def full(self) -> bool:
        """Whether no seat is free."""
        return self.taken >= self.most

    @property
    def spare(self) -> bool:
        """Whether a seat is free that nobody counts on."""
        return self.taken + self.wanted < self.most

    def take(self) -> "Seat":
        """A seat, from before the first attempt until the answer is closed."""
        self.taken += 1
        return Seat(self)


class Seat:
    """Leave it once or more often; who drops it has left."""

    __slots__ = ("_of",)

    def __init__(self, of: Seats) -> None:
        self._of: Seats | None = of

    def leave(self) -> None:
        """It is free again."""
        if self._of is not None:
            self._of.taken -= 1
            self._of = None

    __del__ = leave
