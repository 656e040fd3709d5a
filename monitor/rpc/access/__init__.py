"""Access to the server: TLS, authentication, roles, quotas, admission."""
