"""The packet-routing story, run for real: three processes, real HTTP, and a kill -9 if you like."""
