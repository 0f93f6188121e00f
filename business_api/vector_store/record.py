"""The record of a tenant: which generation its readers see, and who writes the next one."""

import json
import uuid

import msgspec

from business_api.vector_store.collection import NAMESPACE, Collection


class Record(msgspec.Struct, frozen=True):
    """The state of a tenant. `safe`: no reader sees what vanished up to this generation.

    `settled`: no writer is at work and nothing is hidden, so every point of the tenant is visible.
    """

    record_of: str
    writer: str
    generation: int = 0
    published_by: str = ""
    published_at: float = 0.0
    safe: int = 0
    settled: bool = False


def index_name(points: Collection, record: Record) -> str:
    """The physical collection and the generation of this record: `kb__v1_model@12`."""
    return f"{points.name}@{record.generation}"


def record_id(tenant: str) -> str:
    """Id of the point that holds the record."""
    return str(uuid.uuid5(NAMESPACE, json.dumps(["record", tenant])))


async def read_record(points: Collection, tenant: str) -> Record:
    """The record as it is now; one of generation 0 for a tenant that never had anything."""
    kept = await points.get(record_id(tenant))
    return msgspec.convert(kept, Record) if kept is not None else Record(tenant, "")
