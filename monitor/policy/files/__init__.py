"""Policy files and what lies beside them: examples, locks, probe weights and tests; and errors that name their line."""
