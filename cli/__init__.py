"""The command line of rlt-data: one thin file per command."""
