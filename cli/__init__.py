"""The command line of rlt-data: one thin file a command."""
