"""The tests: they mirror pspd/ and pspctl/; integration/ and lab/ run real daemons."""
