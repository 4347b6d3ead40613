"""The AWS backend. Needs the extra `aws`; boto3 is imported when the first client is made."""

from durably.adapters.aws.backend import AwsBackend
from durably.adapters.aws.clients import Clients
from durably.adapters.aws.settings import AwsSettings

__all__ = ["AwsBackend", "AwsSettings", "Clients"]
