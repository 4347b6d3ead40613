"""Events and payloads to JSON and back. The only user of pydantic below the edge; no I/O, no clock."""
