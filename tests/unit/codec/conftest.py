from __future__ import annotations

import pytest

from durably.codec.payloads import PydanticCodec


@pytest.fixture(scope="session")
def codec() -> PydanticCodec:
    return PydanticCodec()
