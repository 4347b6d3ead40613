"""What touches the world: each activity runs at least once, and its result is recorded exactly once."""
