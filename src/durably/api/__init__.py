"""What a user imports: decorators, options, registry. Declarations only; nothing here runs an execution."""
