"""How many texts a tier is asked for at once, and whether it takes one more."""


class Seats:
    """`most` seats, of which `taken` are."""

    def __init__(self, most: int) -> None:
        self.most, self.taken = most, 0

    @property
    def full(self) -> bool:
        """Whether no seat is free."""
        return self.taken >= self.most

    def take(self) -> "Seat":
        """A seat, from before the first attempt until the answer is closed; ask first whether one is free."""
        self.taken += 1
        return Seat(self)


class Seat:
    """One of the seats `of` a tier. Leave it once or more often; who drops it has left."""

    __slots__ = ("_left", "of")

    def __init__(self, of: Seats) -> None:
        self.of, self._left = of, False

    def leave(self) -> None:
        """It is free again."""
        if not self._left:
            self._left = True
            self.of.taken -= 1

    __del__ = leave
