"""What durably costs. `python -m benchmarks --help` says what each case measures, and how."""
