"""Methods: how a compressed set is made from a dataset."""
