"""Commands to devices and the configuration of their agents: signed, once, answered once."""
