"""The TUF release repository: uploads are verified before anything of them is kept."""
