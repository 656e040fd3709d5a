"""The guard: a reverse proxy before a server of the OpenAI API, which lets text through once it was scored."""
