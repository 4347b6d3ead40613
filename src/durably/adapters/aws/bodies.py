"""Bodies in S3: compressed, under the SHA-256 of what is stored, checked when they are read."""

from __future__ import annotations

import hashlib
import re
import zlib
from dataclasses import dataclass
from typing import Self

from durably.adapters.aws import keys
from durably.adapters.aws.clients import Clients
from durably.adapters.aws.faults import aws_errors, code_of, storage_error
from durably.adapters.aws.settings import AwsSettings
from durably.core.errors import StorageError

_TEXT = re.compile(r"([0-9a-f]{64}):(\d{1,12})(:passing)?")


@dataclass(frozen=True, slots=True)
class Reference:
    """An object by its content.

    Attributes:
        sha256: of the object, hexadecimal.
        size: bytes of the body before compression.
        passing: whether it is a message's that is under way, and expires, instead of one that is kept with its life.
    """

    sha256: str
    size: int
    passing: bool = False

    def __str__(self) -> str:
        return f"{self.sha256}:{self.size}{':passing' if self.passing else ''}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The reference that `str` made.

        Raises:
            StorageError: it made none such.
        """
        found = _TEXT.fullmatch(text)
        if found is None:
            raise StorageError(
                f"expected the SHA-256 and size of a body, got {text[:80]!r}; the item was edited by hand."
            )
        return cls(found[1], int(found[2]), found[3] is not None)


class Bodies:
    """The bucket's bodies. Writing one twice is writing it once."""

    def __init__(self, settings: AwsSettings, clients: Clients) -> None:
        self._bucket = settings.bucket
        self._clients = clients

    def put(self, gen: str, raw: bytes, *, passing: bool = False) -> Reference:
        """Store a body of a life; for a few months if it is `passing`.

        Raises:
            StorageError: S3 refused.
        """
        stored = zlib.compress(raw)
        reference = Reference(hashlib.sha256(stored).hexdigest(), len(raw), passing)
        try:
            self._clients.s3.put_object(
                Bucket=self._bucket,
                Key=_key(gen, reference),
                Body=stored,
                ContentType="application/json",
                ContentEncoding="deflate",
            )
        except aws_errors() as error:
            raise storage_error(f"store a body of {len(raw)} bytes in {self._bucket}", error) from error
        return reference

    def get(self, gen: str, reference: Reference) -> bytes:
        """A stored body.

        Raises:
            StorageError: S3 refused, or the object is missing or not what was stored.
        """
        key = _key(gen, reference)
        try:
            stored = self._clients.s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        except aws_errors() as error:
            if code_of(error) in ("NoSuchKey", "404"):
                raise _lost(key, "it is not there") from error
            raise storage_error(f"read {key} from {self._bucket}", error) from error
        if hashlib.sha256(stored).hexdigest() != reference.sha256:
            raise _lost(key, "its checksum differs")
        raw = zlib.decompress(stored)
        if len(raw) != reference.size:
            raise _lost(key, f"it holds {len(raw)} bytes instead of {reference.size}")
        return raw

    def delete(self, gen: str, reference: Reference) -> None:
        """Delete a body that nothing refers to."""
        try:
            self._clients.s3.delete_object(Bucket=self._bucket, Key=_key(gen, reference))
        except aws_errors() as error:
            raise storage_error(f"delete a body from {self._bucket}", error) from error

    def delete_life(self, gen: str) -> None:
        """Delete every body of a life."""
        prefix = keys.bodies_prefix(gen)
        try:
            while True:
                page = self._clients.s3.list_objects_v2(Bucket=self._bucket, Prefix=prefix)
                names = [each["Key"] for each in page.get("Contents", ()) if "Key" in each]
                if names:
                    answer = self._clients.s3.delete_objects(
                        Bucket=self._bucket, Delete={"Objects": [{"Key": name} for name in names], "Quiet": True}
                    )
                    if answer.get("Errors"):
                        raise StorageError(
                            f"S3 did not delete {answer['Errors'][:3]} from {self._bucket}; purge again."
                        )
                if not page.get("IsTruncated"):
                    return
        except aws_errors() as error:
            raise storage_error(f"delete the bodies below {prefix} from {self._bucket}", error) from error


def _key(gen: str, reference: Reference) -> str:
    return (keys.message_key if reference.passing else keys.body_key)(gen, reference.sha256)


def _lost(key: str, reason: str) -> StorageError:
    return StorageError(
        f"The object {key} should hold the body that was stored there, but {reason}. Somebody changed the bucket "
        "by hand or gave it a lifecycle rule. Restore the object's first version."
    )
