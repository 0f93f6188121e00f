"""The feature pipeline: documents become chunks in the index. Never in the way of a request."""

from business_api.ingest.pipeline import ingest
from business_api.ingest.summary import Account, Summary
from business_api.ingest.watching import Watch, rich_watch

__all__ = ["Account", "Summary", "Watch", "ingest", "rich_watch"]
