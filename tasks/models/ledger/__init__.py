"""Every request and its raw answer, kept by the request's key."""
