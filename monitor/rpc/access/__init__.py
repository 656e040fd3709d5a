"""Who may call, and how much: certificates, tokens, roles, quotas, admission."""
