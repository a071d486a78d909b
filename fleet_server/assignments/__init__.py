"""What each device shall run: complete signed lists, made by a signer with a key of its own."""
