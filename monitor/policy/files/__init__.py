"""Policy files and what belongs to them: examples, locks, probe weights, test cases, and errors with their lines."""
