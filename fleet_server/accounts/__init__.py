"""Who may use the API: opaque tokens, each with a role and an expiry."""
