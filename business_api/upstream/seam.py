"""Where the two parts of a resumed answer meet: no white space twice."""


class Seam:
    """Joins a continuation to what was said before it.

    Chat templates trim the white space at the end of a message, so the continuation is asked for without it
    (`asked_for`), and says it again: what has been shown already is left out of the first deltas.
    """

    def __init__(self, said: str) -> None:
        self.asked_for = said.rstrip()
        self._shown = said[len(self.asked_for) :]

    def join(self, text: str) -> str:
        """The delta without what was shown before."""
        while self._shown and text and text[0] == self._shown[0]:
            text, self._shown = text[1:], self._shown[1:]
        if text:
            self._shown = ""
        return text
