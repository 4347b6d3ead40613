"""What onboarding users needs: their CSV, a SQL database at USERS_DATABASE_URL, and the approver's service.

The database is any that SQLAlchemy knows. SQLAlchemy and boto3 are imported where they are used, so that an
orchestrator that only names these activities starts without them.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from functools import cache
from io import StringIO
from typing import TYPE_CHECKING, Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PastDate,
    StringConstraints,
    ValidationError,
)

from activities.services import ask_service
from durably import NonRetryableError, RetryPolicy, activity, attempt_info

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from sqlalchemy import Engine, Table

DATABASE_URL = "USERS_DATABASE_URL"
APPROVER_URL = "APPROVER_URL"
PATIENTLY = RetryPolicy(
    initial_interval=timedelta(seconds=1), coefficient=2, maximum_interval=timedelta(minutes=1), max_attempts=5
)

LONGEST_REPORT = 100


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("holds characters that cannot be printed")
    return text


def _iso_date(text: str) -> date:
    try:
        return date.fromisoformat(text.strip())
    except ValueError:
        raise ValueError("is not a date, YYYY-MM-DD") from None


Text = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), AfterValidator(_printable)
]


class User(BaseModel):
    """A row of the CSV; its fields are the columns."""

    name: Text
    dob: Annotated[PastDate, BeforeValidator(_iso_date)]  # by itself pydantic takes 19900101 for seconds since 1970
    city: Text


class S3Object(BaseModel):
    """Where a CSV lies."""

    model_config = ConfigDict(extra="forbid")

    bucket: str = Field(min_length=1)
    key: str = Field(min_length=1)
    version: str | None = None


class Malformed(BaseModel):
    """A row that was not imported, by the line of the CSV on which it begins."""

    line: int
    problem: str


class ImportReport(BaseModel):
    """What became of a CSV; `malformed` holds the first hundred of the rows rejected."""

    imported: int
    rejected: int
    malformed: list[Malformed]


class ApprovalReport(BaseModel):
    """What became of an approval; `unknown` are ids of nobody in this import."""

    approved: list[int]
    unknown: list[int]


class Reminder(BaseModel):
    """What the approver is sent. The same reminder, sent again, has the same key."""

    key: str
    execution_id: str
    users: int


class CsvError(NonRetryableError):
    """A CSV is wrong as a whole."""


# --- activities ---------------------------------------------------------------------------------------------------


@activity(timeout=timedelta(minutes=5), retry=PATIENTLY)
def import_users(batch: str, source: str | S3Object) -> ImportReport:
    """Write the users of a CSV to the database, in one transaction, and once however often this runs.

    Args:
        batch: names the import, for ever.
        source: the CSV itself, or where it lies.

    Raises:
        CsvError: the CSV is empty, has another header, or cannot be read.
        NonRetryableError: there is no such object, or no database is configured.
    """
    from sqlalchemy import func, insert, select
    from sqlalchemy.exc import IntegrityError

    users, malformed = read_users(source if isinstance(source, str) else _fetch(source))
    imports, table = _tables()
    with _database() as engine:
        try:
            with engine.begin() as transaction:
                transaction.execute(insert(imports).values(batch=batch))
                if users:
                    transaction.execute(insert(table), [{"batch": batch, **user.model_dump()} for user in users])
        except IntegrityError:
            with engine.connect() as connection:
                if connection.scalar(select(imports.c.batch).where(imports.c.batch == batch)) is None:
                    raise
        with engine.connect() as connection:
            imported = connection.scalar(select(func.count()).select_from(table).where(table.c.batch == batch))
    return ImportReport(imported=imported or 0, rejected=len(malformed), malformed=malformed[:LONGEST_REPORT])


@activity(timeout=timedelta(minutes=1), retry=PATIENTLY)
def approve_users(batch: str, ids: list[int]) -> ApprovalReport:
    """Mark those users of an import as approved, in one transaction; who is marked already stays so."""
    from sqlalchemy import bindparam, select, update

    _, table = _tables()
    with _database() as engine, engine.begin() as transaction:
        known = set(transaction.scalars(select(table.c.id).where(table.c.batch == batch)))
        approved = sorted(known.intersection(ids))
        if approved:
            mark = update(table).where(table.c.id == bindparam("user")).values(approved=True)
            transaction.execute(mark, [{"user": id_} for id_ in approved])
    return ApprovalReport(approved=approved, unknown=sorted(set(ids) - known))


@activity(timeout=timedelta(seconds=30), retry=PATIENTLY)
def remind_approver(users: int) -> None:
    """Tell the approver's service that so many users wait for an approval."""
    info = attempt_info()
    reminder = Reminder(key=info.idempotency_key, execution_id=info.execution_id, users=users)
    ask_service(APPROVER_URL, "/reminders", reminder.model_dump_json())


# --- CSV ----------------------------------------------------------------------------------------------------------


def read_users(text: str) -> tuple[list[User], list[Malformed]]:
    """The users of a CSV, and the rows that are none.

    Raises:
        CsvError: it is wrong as a whole.
    """
    users: list[User] = []
    malformed: list[Malformed] = []
    columns = tuple(User.model_fields)
    for line, cells in _rows(text, columns):
        if len(cells) != len(columns):
            problem = f"{len(cells)} cells instead of {len(columns)}, {','.join(columns)}"
            malformed.append(Malformed(line=line, problem=problem))
            continue
        try:
            users.append(User.model_validate(dict(zip(columns, cells, strict=True))))
        except ValidationError as error:
            problems = [f"{each['loc'][0]}: {each['msg'].removeprefix('Value error, ')}" for each in error.errors()]
            malformed.append(Malformed(line=line, problem="; ".join(problems)))
    return users, malformed


def read_ids(text: str) -> list[int]:
    """The ids of an approver's CSV: each once, in its order.

    Raises:
        CsvError: it is wrong as a whole, a row is not an id, or there is none.
    """
    ids: dict[int, None] = {}
    for line, cells in _rows(text, ("id",)):
        if len(cells) != 1 or not re.fullmatch(r"\s*[1-9][0-9]{0,9}\s*", cells[0]):
            raise CsvError(f"Line {line} is not the id of a user, a positive number. Nobody was approved.")
        ids[int(cells[0])] = None
    if not ids:
        raise CsvError("The approval names nobody. Put the ids of the users to approve below the header, one a line.")
    return list(ids)


def _rows(text: str, columns: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """The rows below the header, each with the line on which it begins; blank lines are none."""
    expected = ",".join(columns)
    rows = _numbered(text)
    first = next(rows, None)
    if first is None:
        raise CsvError(f"The CSV is empty; its header must be {expected}.")
    line, header = first
    if [cell.strip().lower() for cell in header] != list(columns):
        raise CsvError(f"Line {line} is {','.join(header)[:200]!r}; it must be the header, {expected}.")
    yield from rows


def _numbered(text: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    begins = 1
    try:
        for cells in reader:
            if cells:
                yield begins, cells
            begins = reader.line_num + 1
    except csv.Error as error:
        raise CsvError(f"The CSV cannot be read from line {begins} on: {error}. Nothing of it was used.") from error


def _fetch(source: S3Object) -> str:
    from boto3 import Session
    from botocore.exceptions import ClientError

    s3: S3Client = Session().client("s3")  # pyright: ignore[reportUnknownMemberType]
    where = f"s3://{source.bucket}/{source.key}"
    try:
        if source.version is None:
            found = s3.get_object(Bucket=source.bucket, Key=source.key)
        else:
            found = s3.get_object(Bucket=source.bucket, Key=source.key, VersionId=source.version)
        return found["Body"].read().decode("utf-8")
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in {"NoSuchKey", "NoSuchBucket", "NoSuchVersion"}:
            raise NonRetryableError(f"{where} does not exist: {error}") from error
        raise
    except UnicodeDecodeError as error:
        raise CsvError(f"{where} is not UTF-8: {error}. Save it as UTF-8.") from error


# --- the database -------------------------------------------------------------------------------------------------


def all_users() -> list[tuple[int, str, date, str, bool]]:
    """Id, name, date of birth, city and approval of everybody in the database."""
    from sqlalchemy import select

    columns = _tables()[1].c
    found = select(columns.id, columns.name, columns.dob, columns.city, columns.approved).order_by(columns.id)
    with _database() as engine, engine.connect() as connection:
        return [(id_, name, dob, city, approved) for id_, name, dob, city, approved in connection.execute(found)]


@cache
def _tables() -> tuple[Table, Table]:
    from sqlalchemy import Boolean, Column, Date, ForeignKey, Integer, MetaData, String, Table, false

    metadata = MetaData()
    imports = Table("imports", metadata, Column("batch", String(300), primary_key=True))
    users = Table(
        "users",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("batch", String(300), ForeignKey("imports.batch"), nullable=False, index=True),
        Column("name", String(200), nullable=False),
        Column("dob", Date, nullable=False),
        Column("city", String(200), nullable=False),
        Column("approved", Boolean, nullable=False, server_default=false()),
    )
    return imports, users


@contextmanager
def _database() -> Generator[Engine]:
    from sqlalchemy import NullPool, create_engine

    url = os.environ.get(DATABASE_URL)
    if not url:
        raise NonRetryableError(
            f"The environment variable {DATABASE_URL} must hold the address of the users' database, and is not set. "
            "Set it for the process that runs the activities: sqlite:////path/of/users.db, or "
            "postgresql+psycopg://USER:PASSWORD@HOST/DATABASE."
        )
    engine = create_engine(url, poolclass=NullPool, hide_parameters=True)  # an error goes into the history
    try:
        _tables()[0].metadata.create_all(engine)
        yield engine
    finally:
        engine.dispose()
