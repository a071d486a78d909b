"""The one command of Skerry and its demo."""
