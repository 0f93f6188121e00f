"""The queue: keys in turn by tokens, classes in order, and who gives way when it is full."""

from collections import Counter

from business_api.queueing import LOWER_SHARE, SAVED, Queue, Ticket


def ticket(key: str, cost: float = 500.0, rank: int = 1) -> Ticket:
    return Ticket(key, rank, cost, arrived=0.0, deadline=10.0)


def served(queue: Queue, number: int) -> list[Ticket]:
    return [queue.pop() for _ in range(number)]


def beside_a_flood(waiting: int, turns: int) -> Queue:
    """A queue where `polite` has been served once, and then nothing for so many turns of `flood`."""
    queue = Queue(3)
    queue.push(ticket("polite"))
    served(queue, 1)
    for _ in range(waiting):
        queue.push(ticket("flood"))
    served(queue, turns)
    return queue


def test_one_key_is_served_in_order_of_arrival() -> None:
    queue = Queue(3)
    tickets = [ticket("a", cost) for cost in (100, 3000, 20, 900)]
    for one in tickets:
        queue.push(one)
    assert served(queue, 4) == tickets
    assert len(queue) == 0


def test_a_key_with_one_request_is_next_however_many_another_has() -> None:
    queue = Queue(3)
    for _ in range(200):
        queue.push(ticket("flood"))
    served(queue, 5)
    queue.push(ticket("polite"))
    assert "polite" in {one.key for one in served(queue, 2)}


def test_a_key_that_asked_little_may_ask_several_times_at_once() -> None:
    queue = beside_a_flood(waiting=200, turns=100)
    for _ in range(SAVED + 4):
        queue.push(ticket("polite"))
    keys = [one.key for one in served(queue, SAVED + 6)]
    assert keys.count("polite") >= SAVED
    # what is saved has a bound: from then on they take turns
    assert keys[-4:].count("flood") == 2


def test_a_key_saves_nothing_while_it_has_requests_waiting() -> None:
    queue = Queue(3)
    for key in ("a", "b"):
        for _ in range(100):
            queue.push(ticket(key))
    counted = Counter(one.key for one in served(queue, 100))
    assert counted["a"] == counted["b"]


def test_keys_get_the_same_tokens_whatever_the_size_of_their_requests() -> None:
    queue = Queue(3)
    for key, cost in (("small", 100.0), ("large", 2000.0), ("middle", 700.0)):
        for _ in range(int(200_000 / cost)):
            queue.push(ticket(key, cost))
    tokens = Counter[str]()
    while sum(tokens.values()) < 150_000:
        one = queue.pop()
        tokens[one.key] += int(one.cost)
    assert max(tokens.values()) - min(tokens.values()) <= 2 * 2000


def test_a_higher_class_goes_first_but_leaves_a_share() -> None:
    queue = Queue(3)
    for _ in range(1000):
        for rank in range(3):
            queue.push(ticket("k", rank=rank))
    ranks = Counter(one.rank for one in served(queue, 1000))
    assert abs(ranks[0] - 1000 * (1 - LOWER_SHARE)) < 25
    assert abs(ranks[1] - 1000 * LOWER_SHARE * (1 - LOWER_SHARE)) < 15
    assert ranks[2] > 5


def test_what_is_ahead_of_a_newcomer_is_what_is_served_before_it() -> None:
    queue = Queue(3)
    for _ in range(50):
        queue.push(ticket("flood"))
    for _ in range(3):
        queue.push(ticket("busy"))
    late = ticket("busy")
    ahead = queue.ahead_of(late)
    queue.push(late)
    before = 0.0
    while (one := queue.pop()) is not late:
        before += one.cost
    assert abs(ahead - before) <= 500


def test_what_is_ahead_of_a_key_that_saved_tokens_is_only_its_own() -> None:
    queue = beside_a_flood(waiting=50, turns=20)
    late = ticket("polite")
    assert queue.ahead_of(late) == 0
    queue.push(late)
    assert queue.pop() is late


def test_a_ticket_that_left_is_neither_served_nor_counted() -> None:
    queue = Queue(3)
    gone, kept = ticket("a"), ticket("a")
    queue.push(gone)
    queue.push(kept)
    assert queue.remove(gone)
    assert not queue.remove(gone)
    assert list(queue) == [kept]
    assert queue.pop() is kept


def test_in_a_full_queue_the_longest_line_of_the_lowest_class_gives_way() -> None:
    queue = Queue(3)
    for key, number, rank in (("a", 3, 1), ("b", 5, 1), ("c", 2, 2), ("d", 1, 2)):
        for _ in range(number):
            queue.push(ticket(key, rank=rank))
    leaving = queue.to_give_way(ticket("new"))
    assert leaving is not None
    assert (leaving.key, leaving.rank) == ("c", 2)
    assert queue.to_give_way(ticket("c", rank=2)) is None
    assert queue.to_give_way(ticket("new", rank=2)) is leaving


def test_nobody_gives_way_to_who_has_as_much_waiting_or_ranks_lower() -> None:
    queue = Queue(3)
    for _ in range(3):
        queue.push(ticket("a"))
    assert queue.to_give_way(ticket("a")) is None
    assert queue.to_give_way(ticket("b", rank=2)) is None
