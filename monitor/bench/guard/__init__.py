"""What the guard adds to streams of other servers, and what the model that watches costs."""
