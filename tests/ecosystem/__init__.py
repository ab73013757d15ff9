"""`make ecosystem`: the example project together with the packages that Django teams use."""
