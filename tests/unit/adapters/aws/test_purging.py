"""Purging where S3 refuses to delete."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from durably.adapters.aws.bodies import Bodies
from durably.adapters.aws.clients import Clients
from durably.adapters.aws.settings import AwsSettings
from durably.core.errors import StorageError


class Refusing:
    def list_objects_v2(self, **_: Any) -> dict[str, Any]:
        return {"Contents": [{"Key": "bodies/g/1"}], "IsTruncated": True}

    def delete_objects(self, **_: Any) -> dict[str, Any]:
        return {"Errors": [{"Key": "bodies/g/1", "Code": "AccessDenied"}]}


def test_what_s3_does_not_delete_is_told_instead_of_asked_for_again_and_again() -> None:
    settings = cast(AwsSettings, SimpleNamespace(bucket="bucket"))
    bodies = Bodies(settings, cast(Clients, SimpleNamespace(s3=Refusing())))
    with pytest.raises(StorageError, match=r"did not delete.*AccessDenied.*purge again"):
        bodies.delete_life("g")
