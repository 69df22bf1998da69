"""The command line, a module for each group of commands. Heavy imports wait inside the commands."""
