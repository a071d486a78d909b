"""The roots of trust at the server: new ones come in, and what runs out is told in time."""
