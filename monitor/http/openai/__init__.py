"""The OpenAI API: chat completions, completions, models and moderations, with verdicts as an extension field."""
