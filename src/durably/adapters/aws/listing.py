"""Listing executions: the partitions of the status index, merged into one order, newest start first."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import chain, islice

from durably.adapters.aws import keys
from durably.adapters.aws.parallel import spread
from durably.adapters.aws.table import Table
from durably.adapters.rules import check_limit, encode_cursor
from durably.ports.backend import Page
from durably.ports.records import Record, Status


def list_page(
    table: Table,
    *,
    status: Status | None,
    orchestrator: str | None,
    before: tuple[int, str] | None,
    limit: int,
    parallel: int,
) -> Page:
    """One page. The first requests to all partitions go out at once; each is read on only as far as the page needs.

    An execution whose status changes between two requests may be seen under both; it is listed once.
    """
    check_limit(limit)
    end = "" if before is None else keys.status_sort(*before)
    share = 2 * (limit // keys.STATUS_SHARDS + 1)

    def begun(partition: str) -> Iterator[Record]:
        records = table.index(partition, before=end, orchestrator=orchestrator, page=share)
        return chain(list(islice(records, 1)), records)

    streams = spread(begun, list(keys.status_partitions(status)), parallel=parallel)
    merged = heapq.merge(*streams, key=_age, reverse=True)
    records = list(islice(_once(merged), limit + 1))
    page = records[:limit]
    more = len(records) > limit
    return Page(tuple(page), encode_cursor(page[-1].started_at_ms, page[-1].execution_id) if more else None)


def _age(record: Record) -> tuple[int, str]:
    return record.started_at_ms, record.execution_id


def _once(records: Iterator[Record]) -> Iterator[Record]:
    last: tuple[int, str] | None = None
    for record in records:
        if _age(record) != last:
            last = _age(record)
            yield record
