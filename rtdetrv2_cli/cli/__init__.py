"""The command line: reads options, calls the library, speaks. Nothing else prints or exits."""
