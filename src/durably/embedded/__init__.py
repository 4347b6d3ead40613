"""durably in one process on one SQLite file, nothing else installed."""

from durably.embedded.service import Embedded as Embedded
from durably.embedded.service import connect as connect
