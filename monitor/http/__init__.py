"""The HTTP door of a server: the OpenAI API, under the same authentication, limits and rules as gRPC."""
