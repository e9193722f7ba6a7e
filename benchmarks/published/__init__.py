"""What papers report, tried with this library over ten draws of data: ``python -m benchmarks.published``.

A module for each study says what is run (`fedavg`, `scaffold`, `robust`, `fedprox`); beside them is what
they share: a fit (`federation`), runs and what is made of them (`study`), statistics (`intervals`), runs
that are finished (`store`), and the page that shows them (`page`). Costs in time are measured elsewhere.
"""
