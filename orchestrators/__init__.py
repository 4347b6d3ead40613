"""What must survive: plain `async def` functions. No I/O here; that is what activities are for."""
