"""Where exchanges are recorded: a spool that loses nothing, drained into a SQLite store."""

from business_api.sink.recorder import Sink, open_store
from business_api.sink.rows import Summary
from business_api.sink.store import ExchangeStore, Rating

__all__ = ["ExchangeStore", "Rating", "Sink", "Summary", "open_store"]
