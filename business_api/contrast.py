"""English words as signals compare them: what denies, what is utmost, what says the opposite."""

import re
from collections.abc import Iterable
from functools import lru_cache

from business_api.sentences import stem

DENIED = "not"
"""What every denial is read as."""
DENIALS = frozenset("cannot neither never no nobody none nor not nothing nowhere".split())
UTMOST = re.compile(r"first|last|second|third|fewest|[a-z]{3,}est$")
NOT_UTMOST = frozenset(
    """
    arrest chest conquest east forest guest harvest honest interest invest manifest midwest modest nest
    northeast northwest priest protest quest request rest southeast southwest suggest test west
    """.split()
)
PREFIXES = ("un", "in", "im", "il", "ir", "non", "dis", "anti", "mis")
PAIRS = """
    above / below
    absent / present
    accept accepted / reject rejected
    active / passive inactive
    adaptive / innate
    add added / remove removed
    advantage / disadvantage
    after following / before preceding
    agree agreed / disagree disagreed
    allow allowed permit permitted / forbid forbidden prohibit prohibited ban banned
    ally friend / enemy foe
    always / never
    ancient / modern contemporary
    arrive arrival / leave departure
    attack attacked offensive / defend defended defensive
    begin began begun start started beginning / end ended stop stopped finish finished
    best / worst
    better / worse
    big large / small little
    bigger larger / smaller
    biggest largest / smallest
    birth born / death died
    bottom lower / top upper
    buy bought / sell sold
    cause caused / prevent prevented
    cheap / expensive
    civilian / military
    close closed / open opened
    cold cool / hot warm
    combine combined together / separate separated
    common / rare
    complete total / partial
    complex / simple
    compress contract shrink / expand
    construct construction create created build built / destruction destroy destroyed
    dark / light
    day / night
    decline declined decrease decreased reduce reduced fall fell drop dropped /
        growth grow grew increase increased rise rose
    decreasing declining falling / increasing growing rising
    deep / shallow
    defeat / victory
    demand / supply
    deny denied / grant granted
    deterministic / nondeterministic
    difficult hard / easy simple
    direct / indirect
    dry / wet
    earlier / later
    earliest / latest
    early / late
    east / west
    eastern / western
    empty / full
    encourage encouraged / discourage discouraged
    enter entered / exit exited leave left
    export / import
    external outer outside / internal inner inside
    fast quick / slow
    faster / slower
    female woman women / male man men
    few fewer less / many more
    fewest least / most
    finite / infinite
    first / last
    follow followed / lead led precede preceded
    former / latter current
    found / lost
    front / back
    gain gained / lose lost
    gas / liquid solid
    give gave given / take took taken
    good / bad
    happy / sad
    heavy / light
    high / low
    higher / lower
    highest / lowest
    horizontal / vertical
    include included including / exclude excluded excluding
    input / output
    join joined / leave left
    junior / senior
    liberal / conservative
    liquid / solid
    long / short
    longer / shorter
    longest / shortest
    love / hate
    major / minor
    majority / minority
    mandatory compulsory / optional voluntary
    maximum / minimum
    natural / artificial
    near / far
    negative / positive
    new newest young youngest / old oldest
    newer younger / older
    north / south
    northern / southern
    northeast / southwest
    northwest / southeast
    oppose opposed / support supported
    past / future
    peace / war
    permanent / temporary
    poor / rich wealthy
    private secret / public
    pull / push
    raise raised / lower lowered reduce reduced
    religious / secular
    rural / urban
    safe / dangerous
    same / different
    save saved / spend spent
    soft / hard
    strength / weakness
    strong / weak
    stronger / weaker
    succeed succeeded success / fail failed failure
    teacher / student
    thick / thin
    trust / distrust
    under / over
    wide / narrow
    win won / lose lost
    winner / loser
    wrong false / right correct true
"""


@lru_cache(1 << 15)
def compared(word: str) -> str:
    """A lower-case word as it is compared: without its ending, unless it is utmost; a denial is DENIED."""
    if word in DENIALS or word.endswith(("n't", "n\u2019t")):
        return DENIED
    return word if utmost(word) else stem(word)


def utmost(word: str) -> bool:
    """Whether a word picks one of many: a superlative, or a place in a row."""
    return UTMOST.match(word) is not None and word not in NOT_UTMOST


def opposed(word: str, said: frozenset[str]) -> bool:
    """Whether the opposite of a word is said. All words as they are compared."""
    if not said.isdisjoint(OPPOSITES.get(word, ())):
        return True
    return len(word) > 4 and any(
        prefix + word in said or (word.startswith(prefix) and word[len(prefix) :] in said)
        for prefix in PREFIXES
    )


def _opposites(pairs: Iterable[str]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for pair in pairs:
        one, other = ({compared(word) for word in side.split()} - {DENIED} for side in pair.split("/"))
        for word in one - other:
            found.setdefault(word, set()).update(other - one)
        for word in other - one:
            found.setdefault(word, set()).update(one - other)
    return {word: frozenset(others) for word, others in found.items()}


OPPOSITES = _opposites(re.split(r"\n(?!        )", PAIRS.strip()))
"""Word as it is compared -> those that say its opposite."""
