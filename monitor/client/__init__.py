"""The client of a monitor server: channel, credentials, errors."""
